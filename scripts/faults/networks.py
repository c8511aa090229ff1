"""Networks that a user might bring along, beside the project's own; plain, and easily spoiled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from runs import unet
from torch import Tensor, nn

from project.networks.normalize import Normalized

Start = Callable[[Tensor], object]
"""Changes a kernel in place, before training."""
ACTIVATIONS = {"relu": nn.ReLU, "leaky": nn.LeakyReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "elu": nn.ELU}


def chain(
    seed: int,
    activation: str = "relu",
    layers: int = 4,
    width: int = 8,
    channels: int = 3,
    norm: bool = False,
    start: Start | None = None,
) -> nn.Module:
    """Convolutions in a row, each but the last with its non-linearity, between a normalization and its inverse."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for before, after in pairwise([channels, *[width] * (layers - 1), 3]):
        parts.append(nn.Conv2d(before, after, 3, padding=1))
        parts += [nn.GroupNorm(4, after)] if norm and after == width else []
        parts.append(ACTIVATIONS[activation]())
    body = nn.Sequential(*parts[:-1])
    return Normalized(body if start is None else started(start, body), channels, 3)


def started(start: Start, network: nn.Module) -> nn.Module:
    """The network, each of its kernels changed."""
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            start(module.weight)
    return network


def normal(std: float) -> Start:
    return lambda weight: nn.init.normal_(weight, std=std)


def times(factor: float) -> Start:
    return lambda weight: weight.data.mul_(factor)


def filled(seed: int, part: str, value: float) -> nn.Module:
    """The small UNet, whose biases in one part all have one value."""
    network = unet(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if part in name and name.endswith("bias"):
                parameter.fill_(value)
    return network


def scaled(network: nn.Module, name: str, by: float) -> nn.Module:
    """The network, with one layer's weights many times as large."""
    times(by)(network.get_submodule(name).weight)
    return network


class Changed(nn.Module):
    """A network that gets something else than the input, as by a normalization that was forgotten or done twice."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.change(x))


def shifted(network: nn.Module, by: float) -> nn.Module:
    return Changed(network, lambda x: x + by)


def stretched(network: nn.Module, by: float) -> nn.Module:
    return Changed(network, lambda x: x * by)


def blind(network: nn.Module) -> nn.Module:
    """Does not get to see its input."""
    return Changed(network, torch.zeros_like)


def first_only(network: nn.Module) -> nn.Module:
    """Gets the first image of the batch for all of them."""
    return Changed(network, lambda x: x[:1].expand_as(x))


class Cut(nn.Module):
    """A network whose first layers are cut off from the loss."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first, self.second = unet(seed), unet(seed + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).detach())


def conv(given: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(given, out, 3, padding=1)


class Again(nn.Module):
    """One convolution, applied over and over, as in a recurrent network."""

    def __init__(self, seed: int, times: int, scale: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.core, self.tail = conv(3, 8), conv(8, 8), conv(8, 3)
        nn.init.normal_(self.core.weight, std=scale)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(x)
        for _ in range(self.times):
            h = torch.relu(self.core(h))
        return x + self.tail(h)


class Residuals(nn.Module):
    """Blocks that add to what they get, without a norm."""

    def __init__(self, seed: int, blocks: int, scale: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.tail = conv(3, 8), conv(8, 3)
        made: list[Any] = [nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8)) for _ in range(blocks)]
        self.blocks = started(times(scale), nn.ModuleList(made))

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(x)
        for block in self.blocks:
            h = h + block(h)
        return x + self.tail(h)
