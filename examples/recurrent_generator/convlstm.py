"""A generator that looks at its own output several times: a ConvLSTM carries what it has seen from pass to pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from project.networks import Normalize
from project.networks.layers import initialize, pad_to_multiple, require


class ConvLSTMCell(nn.Module):
    """An LSTM whose gates are convolutions (Shi et al. 2015, arXiv:1506.04214, without peepholes)."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Features, hidden state and cell, each (B, C, H, W) -> the next hidden state and cell."""
        take, keep, candidate, show = self.gates(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
        cell = keep.sigmoid() * cell + take.sigmoid() * candidate.tanh()
        return show.sigmoid() * cell.tanh(), cell


class RecurrentGenerator(nn.Module):
    """Image in, image out, both around [0, 1] and of the same height and width, which may be any.

    The same weights run in every pass: each sees the input and the output so far, and adds a correction. Untrained
    weights make outputs near the mean of the targets.

    Args:
        in_channels: Channels of the input: 1 for gray or lines, 5 with color hints.
        out_channels: Channels of the output: 3 in space rgb, 2 in lab.
        width: Channels of the features and of the state.
        passes: How often the output is refined; memory in training and time grow with it.
        kernel_size: Odd size of the ConvLSTM's kernel, at a quarter of the resolution: how far a pass carries a color.
    """

    multiple = 4  # height and width are padded to a multiple of this

    def __init__(
        self, in_channels: int = 1, out_channels: int = 3, width: int = 32, passes: int = 3, kernel_size: int = 5
    ) -> None:
        super().__init__()
        rules = {
            "channels, width and passes must be at least 1": min(in_channels, out_channels, width, passes) >= 1,
            "kernel_size must be odd": kernel_size % 2 == 1,
        }
        require("RecurrentGenerator cannot be built", rules)
        self.in_channels, self.out_channels, self.passes = in_channels, out_channels, passes
        self.normalize_input = Normalize(in_channels)
        self.head = nn.Conv2d(4 * (in_channels + out_channels), width, 3, padding=1)  # of pixel-unshuffled images
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.lstm = ConvLSTMCell(width, kernel_size)
        self.up = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 4 * out_channels, 3, padding=1)
        self.normalize_output = Normalize(out_channels)
        gains = {"head": 2**0.5, "down": 2**0.5, "lstm": 1.0, "up": 2**0.5, "tail": 0.1}
        for name, gain in gains.items():
            initialize(getattr(self, name), "kaiming", gain)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) around [0, 1] -> (B, out_channels, H, W) around [0, 1], not clipped."""
        given = F.pixel_unshuffle(self.normalize_input(pad_to_multiple(x, self.multiple, self.multiple)), 2)
        output = given.new_zeros(len(x), self.tail.out_channels, *given.shape[2:])  # normalized, pixel-unshuffled
        hidden = cell = given.new_zeros(len(x), self.down.out_channels, *(side // 2 for side in given.shape[2:]))
        for _ in range(self.passes):
            seen = self.head(torch.cat([given, output], dim=1)).relu()
            hidden, cell = self.lstm(self.down(seen).relu(), hidden, cell)
            up = self.up(F.interpolate(hidden, scale_factor=2.0)).relu()  # nearest: no checkerboard
            output = output + self.tail(up + seen)
        return self.normalize_output.inverse(F.pixel_shuffle(output, 2))[..., : x.shape[-2], : x.shape[-1]]
