"""What the networks are built of."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.errors import UserError, choose

_PLAIN = (nn.SiLU, nn.GELU, nn.ELU, nn.SELU, nn.Mish, nn.Hardswish, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.Identity)
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda channels: nn.ReLU(inplace=True),
    "leaky_relu": lambda channels: nn.LeakyReLU(0.2, inplace=True),
    "prelu": nn.PReLU,
    **{kind.__name__.lower(): lambda channels, kind=kind: kind() for kind in _PLAIN},
}
NORMS = ("batch", "group", "layer", "instance", "none")
HEAD_DIM = 32  # channels of an attention head, about
OUT_GAIN = 0.3  # of attention's output weights at the start, where all positions match alike: it would add their mean


def require(what: str, rules: dict[str, bool]) -> None:
    """UserError that lists the rules that do not hold."""
    broken = [f"\n- {rule}" for rule, holds in rules.items() if not holds]
    if broken:
        raise UserError(f"{what}:{''.join(broken)}")


def pad_to_multiple(x: Tensor, multiple: int, smallest: int) -> Tensor:
    """Replicate the right and lower border of (B, C, H, W) up to a multiple, and at least ``smallest``, one too."""
    below, right = (max(smallest - side, -side % multiple) for side in x.shape[-2:])
    if not (torch.compiler.is_exporting() or below > 0 or right > 0):  # an export must not branch on this image's size
        return x
    return F.pad(x, (0, right, 0, below), mode="replicate")  # reflection fails for a single pixel


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of every pixel (as in ConvNeXt, Liu et al. 2022): (B, C, H, W) -> the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # a view in channels_last, and so is the way back
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def make_norm(name: str, channels: int) -> nn.Module | None:
    """The norm of that name, with a learned gain and shift; a group norm of up to 8 groups; None for ``none``."""
    name = choose("norm", name, NORMS)
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        return nn.GroupNorm(next(g for g in range(8, 0, -1) if channels % g == 0), channels)
    if name == "layer":
        return LayerNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=True) if name == "instance" else None


class ConvBlock(nn.Module):
    """(convolution, norm, activation) ``convs`` times, then dropout; channels and size are kept.

    ``residual`` adds the block's input; ``last_activation`` keeps the activation after the last convolution.
    """

    def __init__(
        self,
        channels: int,
        convs: int = 2,
        kernel_size: int = 3,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
        residual: bool = False,
        last_activation: bool = True,
    ) -> None:
        super().__init__()
        make_activation = ACTIVATIONS[choose("activation", activation, ACTIVATIONS)]
        layers: list[nn.Module] = []
        for position in range(convs):
            norm_layer = make_norm(norm, channels)
            bias = norm_layer is None  # a norm has a shift of its own
            layers.append(nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=bias))
            if norm_layer is not None:
                layers.append(norm_layer)
            if last_activation or position < convs - 1:
                layers.append(make_activation(channels))
        if dropout > 0:
            layers.append(nn.Dropout2d(dropout))
        self.body = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class SkipConnection(nn.Module):
    """Joins the upsampled features with the encoder's: ``concat`` (and a 1x1 convolution), ``add``, or ``none``."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.how = choose("skip", how, ("concat", "add", "none"))
        self.mix = nn.Conv2d(2 * channels, channels, 1) if self.how == "concat" else None

    def forward(self, x: Tensor, skipped: Tensor | None) -> Tensor:
        """Two (B, channels, H, W) -> one; ``none`` needs no second."""
        if self.mix is not None:
            return self.mix(torch.cat([x, skipped], dim=1))
        return x + skipped if self.how == "add" else x


def make_down(how: str, channels: int, channels_out: int) -> nn.Module:
    """(B, channels, 2h, 2w) -> (B, channels_out, h, w)."""
    how = choose("down", how, ("strided", "max", "average"))
    if how == "strided":
        return nn.Conv2d(channels, channels_out, 2, stride=2)
    return nn.Sequential(nn.MaxPool2d(2) if how == "max" else nn.AvgPool2d(2), nn.Conv2d(channels, channels_out, 1))


def make_up(how: str, channels: int, channels_out: int) -> nn.Module:
    """(B, channels, h, w) -> (B, channels_out, 2h, 2w)."""
    how = choose("up", how, ("transposed", "bilinear", "pixel_shuffle"))
    if how == "transposed":
        return nn.ConvTranspose2d(channels, channels_out, 2, stride=2)
    if how == "pixel_shuffle":
        return nn.Sequential(nn.Conv2d(channels, 4 * channels_out, 1), nn.PixelShuffle(2))
    # The 1x1 convolution commutes with the interpolation, and costs a quarter before it.
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(nn.Conv2d(channels, channels_out, 1), up)


class SelfAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017) between pixels, as in Ho et al. 2020, appendix B."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(n for n in range(max(1, channels // HEAD_DIM), 0, -1) if channels % n == 0)
        self.norm = nn.GroupNorm(1, channels)  # not per pixel: a hint is to stay stronger than what has none
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)
        for layer in (self.to_qkv, self.to_out):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.to_out.weight.mul_(OUT_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        batch, channels, height, width = x.shape
        pixels = self.norm(x).permute(0, 2, 3, 1)  # in channels_last a view
        qkv = self.to_qkv(pixels).view(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return x + self.to_out(attended.reshape(batch, height, width, channels)).permute(0, 3, 1, 2)


def activation_gain(activation: str) -> float:
    """The factor on the standard deviation that keeps the variance (He et al. 2015); SiLU, GELU, ...: as ReLU."""
    known = {"leaky_relu": ("leaky_relu", 0.2), "prelu": ("leaky_relu", 0.25), "tanh": ("tanh", None)}
    known |= {"selu": ("selu", None), "sigmoid": ("sigmoid", None), "identity": ("linear", None)}
    return nn.init.calculate_gain(*known.get(activation, ("relu", None)))


def initialize(module: nn.Module, scheme: str, gain: float = 1.0) -> None:
    """Draw the weights of all convolutions inside, in place; biases become 0.

    ``kaiming``: normal, gain / sqrt(fan in) (He et al. 2015); ``xavier``: normal (Glorot and Bengio 2010);
    ``orthogonal``: orthonormal rows (Saxe et al. 2014). The gain is that of the activation that follows.
    """
    schemes: dict[str, Callable[[Tensor], Tensor]] = {
        "kaiming": lambda weight: nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel())),
        "xavier": nn.init.xavier_normal_,
        "orthogonal": nn.init.orthogonal_,
    }
    draw = schemes[choose("init", scheme, schemes)]
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            # With the stride as large as the kernel, each tap is a linear map (in -> out) of its own.
            channels_in, channels_out, *kernel = layer.weight.shape
            with torch.no_grad():
                for row, column in product(*map(range, kernel)):
                    layer.weight[:, :, row, column] = draw(torch.empty(channels_out, channels_in)).T
        elif isinstance(layer, nn.Conv2d):
            draw(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
