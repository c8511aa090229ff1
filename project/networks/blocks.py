"""What a UNet is built of: activation, norm, a block of convolutions, halving, doubling, joining."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.errors import choose

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda channels: nn.ReLU(inplace=True),
    "leaky_relu": lambda channels: nn.LeakyReLU(0.2, inplace=True),
    "prelu": nn.PReLU,
    "silu": lambda channels: nn.SiLU(),
    "gelu": lambda channels: nn.GELU(),
    "elu": lambda channels: nn.ELU(),
    "selu": lambda channels: nn.SELU(),
    "mish": lambda channels: nn.Mish(),
    "hardswish": lambda channels: nn.Hardswish(),
    "softplus": lambda channels: nn.Softplus(),
    "tanh": lambda channels: nn.Tanh(),
    "sigmoid": lambda channels: nn.Sigmoid(),
    "identity": lambda channels: nn.Identity(),
}
NORMS = ("batch", "group", "layer", "instance", "none")
DOWNS = ("strided", "max", "average")
UPS = ("transposed", "bilinear", "pixel_shuffle")
SKIPS = ("concat", "add", "none")


def missing(side: int, multiple: int, smallest: int) -> int:
    """Pixels that a side lacks to be a multiple, and at least the smallest side, which is one too."""
    return max(smallest - side, -side % multiple)


def pad_up(x: Tensor, multiple: int, smallest: int) -> Tensor:
    """Pad on the right and below, up to a multiple of pixels and at least to the smallest side.

    Args:
        x: (B, C, H, W).
        multiple: Of which both sides are to be.
        smallest: Side that they have at least; a multiple of it too.

    Returns:
        ``x`` itself where nothing is missing, but in an export: that has to serve every size, so it must not branch on
        this one.
    """
    below, right = missing(x.shape[-2], multiple, smallest), missing(x.shape[-1], multiple, smallest)
    if not (torch.compiler.is_exporting() or below > 0 or right > 0):
        return x
    # Replication, unlike reflection, works for an image of a single pixel as well.
    return F.pad(x, (0, right, 0, below), mode="replicate")


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of every pixel (as in ConvNeXt, Liu et al. 2022): (B, C, H, W) -> the same shape.

    In channels_last both permutations are views, so nothing is copied.

    Args:
        channels: Number of channels, C.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize over the channels of each pixel: (B, C, H, W) -> (B, C, H, W)."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def make_activation(name: str, channels: int) -> nn.Module:
    """The activation of that name; PReLU learns one slope a channel, leaky ReLU has slope 0.2.

    Raises:
        UserError: For an unknown name; tells the nearest one.
    """
    return ACTIVATIONS[choose("activation", name, ACTIVATIONS)](channels)


def make_norm(name: str, channels: int, groups: int = 8) -> nn.Module | None:
    """The norm of that name, each with a learned gain and shift; None for ``none``.

    Args:
        name: batch, group, layer, instance or none.
        channels: Number of channels.
        groups: At most so many groups for ``group``: the largest number up to it that divides the channels.

    Raises:
        UserError: For an unknown name; tells the nearest one.
    """
    name = choose("norm", name, NORMS)
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        return nn.GroupNorm(next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0), channels)
    if name == "layer":
        return LayerNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=True) if name == "instance" else None


class ConvBlock(nn.Module):
    """(convolution, norm, activation) several times, the number of channels and the size kept.

    Args:
        channels: Channels in and out.
        convs: Number of convolutions.
        kernel_size: Odd size of their kernels, in pixels.
        activation: Name of the activation.
        norm: Name of the norm.
        norm_groups: At most so many groups for the group norm.
        bias: Whether the convolutions have a bias.
        dropout: Probability that a channel of the result is dropped, in [0, 1).
        residual: Add the block's input to its result.
        last_activation: Keep the activation after the last convolution.
    """

    def __init__(
        self,
        channels: int,
        convs: int,
        kernel_size: int,
        activation: str,
        norm: str,
        norm_groups: int,
        bias: bool,
        dropout: float,
        residual: bool,
        last_activation: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for position in range(convs):
            layers.append(nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=bias))
            norm_layer = make_norm(norm, channels, norm_groups)
            if norm_layer is not None:
                layers.append(norm_layer)
            if last_activation or position < convs - 1:
                layers.append(make_activation(activation, channels))
        if dropout > 0:
            layers.append(nn.Dropout2d(dropout))
        self.body = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, H, W)."""
        return x + self.body(x) if self.residual else self.body(x)


class Join(nn.Module):
    """What came up from below meets what was kept on the way down: added, or concatenated and mixed (1x1).

    Args:
        channels: Channels of each of the two, and of the result.
        how: concat, add, or none: what was kept is ignored.
        bias: Whether the mixing convolution has a bias.
    """

    def __init__(self, channels: int, how: str, bias: bool) -> None:
        super().__init__()
        self.how = choose("skip", how, SKIPS)
        self.mix = nn.Conv2d(2 * channels, channels, 1, bias=bias) if self.how == "concat" else None

    def forward(self, x: Tensor, kept: Tensor | None) -> Tensor:
        """Two (B, channels, H, W) -> one (B, channels, H, W); ``none`` needs no second."""
        if self.mix is not None:
            return self.mix(torch.cat([x, kept], dim=1))
        return x + kept if self.how == "add" else x


def make_down(how: str, channels: int, channels_out: int, bias: bool) -> nn.Module:
    """Halve height and width: (B, channels, 2h, 2w) -> (B, channels_out, h, w).

    Args:
        how: strided (a 2x2 convolution of stride 2), max or average (2x2 pooling, then a 1x1 convolution).
        channels: Channels in.
        channels_out: Channels out.
        bias: Whether the convolution has a bias.

    Raises:
        UserError: For an unknown name; tells the nearest one.
    """
    how = choose("down", how, DOWNS)
    if how == "strided":
        return nn.Conv2d(channels, channels_out, 2, stride=2, bias=bias)
    pool = nn.MaxPool2d(2) if how == "max" else nn.AvgPool2d(2)
    return nn.Sequential(pool, nn.Conv2d(channels, channels_out, 1, bias=bias))


def make_up(how: str, channels: int, channels_out: int, bias: bool) -> nn.Module:
    """Double height and width: (B, channels, h, w) -> (B, channels_out, 2h, 2w).

    Args:
        how: transposed (a 2x2 transposed convolution), bilinear (interpolation) or pixel_shuffle.
        channels: Channels in.
        channels_out: Channels out.
        bias: Whether the convolution has a bias.

    Raises:
        UserError: For an unknown name; tells the nearest one.
    """
    how = choose("up", how, UPS)
    if how == "transposed":
        return nn.ConvTranspose2d(channels, channels_out, 2, stride=2, bias=bias)
    if how == "pixel_shuffle":
        return nn.Sequential(nn.Conv2d(channels, 4 * channels_out, 1, bias=bias), nn.PixelShuffle(2))
    # The 1x1 convolution commutes with the interpolation, and costs a quarter before it.
    return nn.Sequential(
        nn.Conv2d(channels, channels_out, 1, bias=bias),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
    )
