"""The UNet (Ronneberger et al. 2015), each of its parts a choice."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from project.networks.attention import SelfAttention
from project.networks.blocks import NORMS, ConvBlock, Join, make_activation, make_down, make_up, pad_up
from project.networks.initialize import activation_gain, initialize
from project.networks.normalize import Normalize
from workbench.errors import UserError, choose

TAIL = 0.1
"""The last convolution starts this much smaller: the first answer is close to the input in residual mode, else to the
targets' mean, and not far worse than either."""


class UNet(nn.Module):
    """Image in, image out, both in [0, 1] and of the same height and width, which may be any.

    Args:
        in_channels: Channels of the input: 3 for color, 1 for gray; a noise map or hints add theirs.
        out_channels: Channels of the output.
        width: Channels of the first level.
        depth: Number of halvings, and of doublings.
        width_growth: Factor on the width from each level to the next lower one.
        max_width: No level gets more channels than this; null for no limit.
        widths: Channels of every level, from the top; replaces width, depth, width_growth and max_width.
        convs: Convolutions in a block.
        blocks: Blocks in a stage (each level has a stage on the way down and one on the way up).
        kernel_size: Odd size of the blocks' kernels, in pixels.
        activation: relu, leaky_relu, prelu, silu, gelu, elu, selu, mish, hardswish, softplus, tanh, sigmoid, identity.
        norm: batch, group, layer, instance or none.
        norm_groups: At most so many groups for the group norm; the largest number up to it that divides the channels.
        dropout: Probability that a channel is dropped at the end of a block, in [0, 1).
        bias: Bias in the convolutions; null: everywhere except where a norm follows, which has its own.
        down: Halving by strided (2x2 convolution), max or average (pooling).
        up: Doubling by transposed (2x2 convolution), bilinear or pixel_shuffle.
        stem: Pixel-unshuffle factor before the first level: 1 for none; 2 works on a quarter of the places.
        attention: Levels (0 is the top) whose stages end in self-attention: what is known at one place, such as a
            color hint, reaches all places like it. The work grows with the square of a level's places.
        skip: How the way up takes what the way down kept: concat (and a 1x1 convolution), add, or none: not at all.
        stage_residual: Add a block's input to its result; helps most without a norm.
        last_activation: Keep the activation after a block's last convolution; DRUNet's residual blocks leave it out.
        residual: Predict the difference to the input (its first out_channels channels): for restoration.
        init: How the weights start: kaiming, xavier or orthogonal.

    Raises:
        UserError: For an unknown name or an impossible number; all faulty numbers are told at once.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 32,
        depth: int = 2,
        width_growth: float = 2.0,
        max_width: int | None = None,
        widths: list[int] | None = None,
        convs: int = 2,
        blocks: int = 1,
        kernel_size: int = 3,
        activation: str = "relu",
        norm: str = "batch",
        norm_groups: int = 8,
        dropout: float = 0.0,
        bias: bool | None = None,
        down: str = "strided",
        up: str = "transposed",
        stem: int = 1,
        attention: list[int] | None = None,
        skip: str = "concat",
        stage_residual: bool = False,
        last_activation: bool = True,
        residual: bool = False,
        init: str = "kaiming",
    ) -> None:
        super().__init__()
        attention = [] if attention is None else attention
        _check(**{name: value for name, value in locals().items() if name not in ("self", "__class__")})
        if widths is None:
            widths = [round(width * width_growth**level) for level in range(depth + 1)]
            widths = [min(w, max_width) for w in widths] if max_width is not None else widths
        if not all(0 <= level < len(widths) for level in attention):
            raise UserError(
                f"UNet cannot be built: attention is {attention}, and its levels are 0 to {len(widths) - 1}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stem = stem
        self.residual = residual
        self.multiple = stem * 2 ** (len(widths) - 1)
        """Height and width are padded to a multiple of this inside ``forward``."""
        # Statistics over a single pixel do not exist: with such norms the lowest level gets at least 2 x 2 of them.
        norm = choose("norm", norm, NORMS)
        self.smallest = self.multiple * (2 if norm in ("batch", "group", "instance") else 1)

        def stage(level: int) -> nn.Sequential:
            channels = widths[level]
            with_bias = norm == "none" if bias is None else bias
            options = (convs, kernel_size, activation, norm, norm_groups, with_bias, dropout, stage_residual)
            parts: list[nn.Module] = [ConvBlock(channels, *options, last_activation) for _ in range(blocks)]
            return nn.Sequential(*parts, *([SelfAttention(channels)] if level in attention else []))

        outer_bias = bias is not False
        steps = list(itertools.pairwise(widths))
        levels = range(len(steps))
        self.normalize_input = Normalize(in_channels)
        self.head = nn.Conv2d(in_channels * stem**2, widths[0], 3, padding=1, bias=outer_bias)
        self.encoder = nn.ModuleList([stage(level) for level in levels])
        self.down = nn.ModuleList([make_down(down, upper, lower, outer_bias) for upper, lower in steps])
        self.middle = stage(len(steps))
        self.up = nn.ModuleList([make_up(up, lower, upper, outer_bias) for upper, lower in reversed(steps)])
        self.join = nn.ModuleList([Join(upper, skip, outer_bias) for upper, _ in reversed(steps)])
        self.decoder = nn.ModuleList([stage(level) for level in reversed(levels)])
        self.tail = nn.Conv2d(widths[0], out_channels * stem**2, 3, padding=1, bias=outer_bias)
        self.normalize_output = Normalize(out_channels)
        self._initialize(init, activation_gain(activation))

    def _initialize(self, scheme: str, gain: float) -> None:
        for name, part in self.named_children():
            initialize(part, scheme, gain if name in ("encoder", "middle", "decoder") else 1.0)
        with torch.no_grad():
            self.tail.weight.mul_(TAIL)

    def encoder_stages(self) -> list[list[str]]:
        """Names of the layers of each level on the way down, the middle last: what can be frozen one by one."""
        lower = [f"encoder.{level}" for level in range(1, len(self.encoder))] + ["middle"]
        first = ["head", "encoder.0"] if len(self.encoder) else ["head", "middle"]
        return [first, *([f"down.{level}", name] for level, name in enumerate(lower[: len(self.down)]))]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) around [0, 1] -> (B, out_channels, H, W) around [0, 1], not clipped."""
        whole = pad_up(x, self.multiple, self.smallest)
        h = self.normalize_input(whole)
        h = self.head(F.pixel_unshuffle(h, self.stem) if self.stem > 1 else h)
        kept: list[Tensor] = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            h = stage(h)
            kept.append(h)
            h = down(h)
        h = self.middle(h)
        for up, join, stage in zip(self.up, self.join, self.decoder, strict=True):
            h = stage(join(up(h), kept.pop()))
        h = self.tail(h)
        h = F.pixel_shuffle(h, self.stem) if self.stem > 1 else h
        if self.residual:
            # The means are left out, so that a tail of zeros gives back exactly the input.
            h = whole[:, : self.out_channels] + h * self.normalize_output.std
        else:
            h = self.normalize_output.inverse(h)
        return h if whole is x else h[..., : x.shape[-2], : x.shape[-1]]


def _check(**given: object) -> None:
    """Tell every impossible number in one error; names are checked where they are looked up."""
    widths = given["widths"]
    positive = ("in_channels", "out_channels", "width", "convs", "blocks", "kernel_size", "norm_groups", "stem")
    faults = [f"{name} must be at least 1, not {given[name]}" for name in positive if given[name] < 1]
    if given["depth"] < 0:
        faults.append(f"depth must be at least 0, not {given['depth']}")
    if given["width_growth"] <= 0:
        faults.append(f"width_growth must be above 0, not {given['width_growth']}")
    if given["max_width"] is not None and given["max_width"] < 1:
        faults.append(f"max_width must be at least 1 or null, not {given['max_width']}")
    if widths is not None and (len(widths) == 0 or min(widths) < 1):
        faults.append(f"widths must be a list of positive numbers, one a level, not {widths}")
    if given["kernel_size"] % 2 == 0:
        faults.append(f"kernel_size must be odd, not {given['kernel_size']}")
    if not 0 <= given["dropout"] < 1:
        faults.append(f"dropout must be in [0, 1), not {given['dropout']}")
    if given["residual"] and given["out_channels"] > given["in_channels"]:
        faults.append(
            f"residual: true adds the input to the output, so out_channels ({given['out_channels']}) must not be "
            f"above in_channels ({given['in_channels']}); set residual: false"
        )
    make_activation(given["activation"], 1)
    if faults:
        raise UserError("UNet cannot be built:\n" + "\n".join(f"- {fault}" for fault in faults))
