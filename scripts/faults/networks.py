"""Networks that a user might bring along, beside the project's own; plain, and easily spoilt."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from runs import unet
from torch import Tensor, nn

from project.networks.normalize import Normalized

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
}


def chain(
    seed: int,
    activation: str = "relu",
    layers: int = 4,
    width: int = 8,
    given: int = 3,
    norm: bool = False,
    start: Callable[[Tensor], object] | None = None,
) -> nn.Module:
    """Convolutions in a row, each with its non-linearity but for the last, between a normalization and its inverse.

    Args:
        seed: Of the weights.
        activation: A key of ``ACTIVATIONS``.
        layers: Number of convolutions.
        width: Channels between them.
        given: Channels of the input.
        norm: Whether a group norm comes before each non-linearity.
        start: How every kernel starts, in place; None: as PyTorch starts them.
    """
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for before, after in pairwise([given, *[width] * (layers - 1), 3]):
        parts.append(nn.Conv2d(before, after, 3, padding=1))
        parts += [nn.GroupNorm(4, after)] if norm and after == width else []
        parts.append(ACTIVATIONS[activation]())
    body = nn.Sequential(*parts[:-1])
    for kernel in kernels(body):
        if start is not None:
            start(kernel)
    return Normalized(body, given, 3)


def kernels(network: nn.Module) -> list[Tensor]:
    """The weights of all convolutions."""
    return [module.weight for module in network.modules() if isinstance(module, nn.modules.conv._ConvNd)]


def started(start: Callable[[Tensor], object], seed: int, **more: object) -> nn.Module:
    """The small UNet, its kernels started in a way of one's own."""
    network = unet(seed, **more)
    for kernel in kernels(network):
        start(kernel)
    return network


def filled(seed: int, part: str, value: float, **more: object) -> nn.Module:
    """The small UNet, whose biases in one part all have one value."""
    network = unet(seed, **more)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if part in name and name.endswith("bias"):
                parameter.fill_(value)
    return network


def scaled(network: nn.Module, name: str, by: float) -> nn.Module:
    """The network, with one layer's weights many times as large."""
    with torch.no_grad():
        network.get_submodule(name).weight.mul_(by)
    return network


class Shifted(nn.Module):
    """A network that gets its input moved away from 0, as by a normalization that was forgotten or done twice."""

    def __init__(self, network: nn.Module, by: float, scale: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.by, self.scale = by, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x * self.scale + self.by)


class Again(nn.Module):
    """One convolution, applied over and over, as in a recurrent network."""

    def __init__(self, seed: int, times: int, scale: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.core, self.tail = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 3, 3, 1, 1)
        nn.init.normal_(self.core.weight, std=scale)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(x)
        for _ in range(self.times):
            h = torch.relu(self.core(h))
        return x + self.tail(h)


class Blind(nn.Module):
    """A generator that does not get to see its input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(torch.zeros_like(x))


class FirstOnly(nn.Module):
    """A generator that gets the first image of the batch for all of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x[:1].expand_as(x))


class Residuals(nn.Module):
    """Blocks that add to what they get, without a norm."""

    def __init__(self, seed: int, blocks: int, scale: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.tail = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 3, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1)) for _ in range(blocks)
        )
        with torch.no_grad():
            for kernel in kernels(self.blocks):
                kernel.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(x)
        for block in self.blocks:
            h = h + block(h)
        return x + self.tail(h)
