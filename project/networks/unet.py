"""The UNet (Ronneberger et al. 2015), each of its parts a choice."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from project.networks.layers import (
    NORMS,
    ConvBlock,
    SelfAttention,
    SkipConnection,
    activation_gain,
    initialize,
    make_down,
    make_up,
    pad_to_multiple,
    require,
)
from project.networks.normalize import Normalize
from workbench.errors import choose

TAIL_GAIN = 0.1  # of the last weights at the start: the first output is close to the input, or to the targets' mean


class UNet(nn.Module):
    """Image in, image out, both in [0, 1] and of the same height and width, which may be any.

    Args:
        in_channels: Channels of the input: 3 for color, 1 for gray; a noise map or hints add theirs.
        out_channels: Channels of the output.
        widths: Channels of every level, from the top; each level has half the resolution of the one above.
        convs: Convolutions in a stage; each level has a stage on the way down and one on the way up.
        kernel_size: Odd size of the blocks' kernels, in pixels.
        activation: relu, leaky_relu, prelu, silu, gelu, elu, selu, mish, hardswish, softplus, tanh, sigmoid, identity.
        norm: batch, group, layer, instance or none.
        dropout: Probability that a channel is dropped at the end of a block, in [0, 1).
        down: Downsampling by strided (2x2 convolution), max or average (pooling).
        up: Upsampling by transposed (2x2 convolution), bilinear or pixel_shuffle.
        stem: Pixel-unshuffle factor before the first level: 1 for none; 2 works on a quarter of the pixels.
        attention: Levels (0 is the top) whose stages end in self-attention: a color hint reaches all places like its
            own. The work grows with the square of a level's pixels.
        skip: Skip connections: concat (and a 1x1 convolution), add, or none.
        stage_residual: Add a block's input to its output; helps most without a norm.
        last_activation: Keep the activation after a block's last convolution; DRUNet's residual blocks leave it out.
        residual: Predict the difference to the input (its first out_channels channels): for restoration.
        init: Initialization of the weights: kaiming, xavier or orthogonal.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        widths: tuple[int, ...] = (32, 64, 128),
        convs: int = 2,
        kernel_size: int = 3,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
        down: str = "strided",
        up: str = "transposed",
        stem: int = 1,
        attention: tuple[int, ...] = (),
        skip: str = "concat",
        stage_residual: bool = False,
        last_activation: bool = True,
        residual: bool = False,
        init: str = "kaiming",
    ) -> None:
        super().__init__()
        numbers = (in_channels, out_channels, convs, kernel_size, stem)
        require(
            "UNet cannot be built",
            {
                "channels, convs, kernel_size and stem must be at least 1": min(numbers) >= 1,
                "widths must be positive numbers, one per level": min(widths, default=0) >= 1,
                f"attention must name levels, from 0 to {len(widths) - 1}": set(attention) <= set(range(len(widths))),
                "kernel_size must be odd": kernel_size % 2 == 1,
                "dropout must be in [0, 1)": 0 <= dropout < 1,
                "residual adds the input to the output: out_channels must not be above in_channels": (
                    not residual or out_channels <= in_channels
                ),
            },
        )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stem = stem
        self.residual = residual
        self.multiple = stem * 2 ** (len(widths) - 1)  # height and width are padded to a multiple of this
        # Statistics over a single pixel do not exist: with such norms the lowest level gets at least 2 x 2 of them.
        self.smallest = self.multiple * (2 if choose("norm", norm, NORMS) in ("batch", "group", "instance") else 1)

        def stage(level: int) -> nn.Sequential:
            options = (convs, kernel_size, activation, norm, dropout, stage_residual, last_activation)
            block = ConvBlock(widths[level], *options)
            return nn.Sequential(block, SelfAttention(widths[level])) if level in attention else nn.Sequential(block)

        steps = list(pairwise(widths))
        levels = range(len(steps))
        self.normalize_input = Normalize(in_channels)
        self.head = nn.Conv2d(in_channels * stem**2, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList([stage(level) for level in levels])
        self.down = nn.ModuleList([make_down(down, upper, lower) for upper, lower in steps])
        self.middle = stage(len(steps))
        self.up = nn.ModuleList([make_up(up, lower, upper) for upper, lower in reversed(steps)])
        self.join = nn.ModuleList([SkipConnection(upper, skip) for upper, _ in reversed(steps)])
        self.decoder = nn.ModuleList([stage(level) for level in reversed(levels)])
        self.tail = nn.Conv2d(widths[0], out_channels * stem**2, 3, padding=1)
        self.normalize_output = Normalize(out_channels)
        for name, part in self.named_children():
            initialize(part, init, activation_gain(activation) if name in ("encoder", "middle", "decoder") else 1.0)
        self.tail.weight.data.mul_(TAIL_GAIN)

    def encoder_stages(self) -> list[list[str]]:
        """Names of the layers of each level on the way down, the middle last: what fine-tuning freezes one by one."""
        names = [*(f"encoder.{level}" for level in range(len(self.encoder))), "middle"]
        return [["head", names[0]], *([f"down.{level}", name] for level, name in enumerate(names[1:]))]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) around [0, 1] -> (B, out_channels, H, W) around [0, 1], not clipped."""
        padded = pad_to_multiple(x, self.multiple, self.smallest)
        h = self.normalize_input(padded)
        h = self.head(F.pixel_unshuffle(h, self.stem) if self.stem > 1 else h)
        skipped: list[Tensor] = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            h = stage(h)
            skipped.append(h)
            h = down(h)
        output = decode(self, self.middle(h), skipped, padded, self.stem)
        return output if padded is x else output[..., : x.shape[-2], : x.shape[-1]]


def decode(network: nn.Module, h: Tensor, skipped: list[Tensor | None], padded: Tensor, stem: int = 1) -> Tensor:
    """From the lowest level's features, and those of all above, up to the image; ``padded`` is the network's input."""
    for up, join, stage in zip(network.up, network.join, network.decoder, strict=True):
        h = stage(join(up(h), skipped.pop()))
    h = network.tail(h)
    h = F.pixel_shuffle(h, stem) if stem > 1 else h
    if network.residual:
        # Without the means, so that a tail of zeros returns exactly the input.
        return padded[:, : network.out_channels] + h * network.normalize_output.std
    return network.normalize_output.inverse(h)
