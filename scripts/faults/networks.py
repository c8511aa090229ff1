"""Small networks, and ways to spoil them. Each function returns a `Make`: seed -> network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from project.networks import UNet
from project.networks.normalize import Normalized

Make = Callable[[int], nn.Module]


def seeded(build: Callable[..., nn.Module]) -> Callable[..., Make]:
    """Decorator: a function that builds a network becomes one that returns how to, from a seed."""

    def configure(*arguments: Any, **options: Any) -> Make:
        def make(seed: int) -> nn.Module:
            torch.manual_seed(seed)
            return build(*arguments, **options)

        return make

    return configure


@seeded
def unet(**options: Any) -> nn.Module:
    """The denoiser's network."""
    defaults = {"widths": [8, 16], "norm": "none", "skip": "add", "stage_residual": True, "residual": True}
    return UNet(**{**defaults, **options})


def gray_unet(**options: Any) -> Make:
    """A colorizer's network."""
    return unet(**{"in_channels": 1, "residual": False, **options})


@seeded
def chain(
    activation: type[nn.Module] = nn.ReLU, layers: int = 4, width: int = 8, channels: int = 3, group_norm: bool = False
) -> nn.Module:
    """Convolutions in a row, each but the last with its activation, between a normalization and its inverse."""
    parts: list[nn.Module] = []
    for before, after in pairwise([channels, *[width] * (layers - 1), 3]):
        parts.append(conv(before, after))
        if group_norm and after == width:
            parts.append(nn.GroupNorm(4, after))
        parts.append(activation())
    return Normalized(nn.Sequential(*parts[:-1]), channels, 3)


def edited(make: Make, change: Callable[[Tensor], object], part: str = "", kind: str = "weight") -> Make:
    """The network with the weights (or biases) of one part, or of all, changed in place."""

    def changed(seed: int) -> nn.Module:
        network = make(seed)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if part in name and name.endswith(kind):
                    change(parameter)
        return network

    return changed


def normal(std: float) -> Callable[[Tensor], object]:
    return lambda weight: nn.init.normal_(weight, std=std)


def times(factor: float) -> Callable[[Tensor], object]:
    return lambda weight: weight.mul_(factor)


class InputChanged(nn.Module):
    """Gets something else than the input, as by a normalization that was forgotten or done twice."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.change(x))


def input_changed(make: Make, change: Callable[[Tensor], Tensor]) -> Make:
    return lambda seed: InputChanged(make(seed), change)


def detached() -> Make:
    """Two networks in a row; the first is cut off from the loss."""
    return lambda seed: nn.Sequential(unet()(seed), InputChanged(unet()(seed + 1), Tensor.detach))


def conv(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ConvReLU(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


@seeded
def recurrent(times: int, std: float) -> nn.Module:
    """One convolution, applied over and over."""
    head, core, tail = conv(3, 8), ConvReLU(8, 8, 3, padding=1), conv(8, 3)
    nn.init.normal_(core.weight, std=std)
    return Residual(head, *[core] * times, tail)


@seeded
def residuals(count: int) -> nn.Module:
    """Residual blocks without a norm."""
    head, tail = conv(3, 8), conv(8, 3)
    blocks = nn.Sequential(*(Residual(conv(8, 8), nn.ReLU(), conv(8, 8)) for _ in range(count)))
    return Residual(OrderedDict(head=head, blocks=blocks, tail=tail))
