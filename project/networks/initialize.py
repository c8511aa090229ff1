"""How a network's weights start."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from workbench.errors import choose, plain

SCHEMES = ("kaiming", "xavier", "orthogonal")


def activation_gain(activation: str) -> float:
    """The factor on the standard deviation that keeps the variance through that activation (He et al. 2015).

    Names without a known factor (SiLU, GELU, ...) behave much like ReLU and take its sqrt(2).
    """
    known = {"leakyrelu": ("leaky_relu", 0.2), "prelu": ("leaky_relu", 0.25), "tanh": ("tanh", None)}
    known |= {"selu": ("selu", None), "sigmoid": ("sigmoid", None), "identity": ("linear", None)}
    name, slope = known.get(plain(activation), ("relu", None))
    return nn.init.calculate_gain(name, slope)


def initialize(module: nn.Module, scheme: str, gain: float = 1.0) -> None:
    """Draw every convolution's weights anew, and set its bias to 0.

    Args:
        module: What to initialize, in place; modules without convolutions are left as they are.
        scheme: ``kaiming``: normal, gain / sqrt(fan in) (He et al. 2015); ``xavier``: normal,
            sqrt(2 / (fan in + fan out)) (Glorot and Bengio 2010); ``orthogonal``: orthonormal rows (Saxe et al. 2014).
        gain: Factor on Kaiming's standard deviation, of the activation that follows; see ``activation_gain``.

    Raises:
        UserError: For an unknown scheme; tells the nearest one.
    """
    scheme = choose("init", scheme, SCHEMES)
    draw: Callable[[Tensor], Tensor] = {
        "kaiming": lambda weight: nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel())),
        "xavier": nn.init.xavier_normal_,
        "orthogonal": nn.init.orthogonal_,
    }[scheme]
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            _draw_taps(layer.weight, draw)
        elif isinstance(layer, nn.Conv2d):
            draw(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _draw_taps(weight: Tensor, draw: Callable[[Tensor], Tensor]) -> None:
    """With the stride as large as the kernel, each place in the kernel is a linear map (in -> out) of its own."""
    channels_in, channels_out, height, width = weight.shape
    with torch.no_grad():
        for row in range(height):
            for column in range(width):
                weight[:, :, row, column] = draw(torch.empty(channels_out, channels_in)).T
