"""Whether an exported file answers as PyTorch does, on sizes that it was not made with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SIZES = ((1, 33, 70), (3, 64, 47), (2, 101, 9), (1, 1, 1))
"""Batch, height, width: odd, even, small."""


def largest_difference(network: nn.Module, other: Callable[[Tensor], Tensor], channels: int) -> float:
    """The largest difference of two functions' answers to random images of several sizes.

    Args:
        network: (B, C, H, W) -> (B, C', H, W), on the CPU.
        other: Likewise.
        channels: C.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    with torch.inference_mode():
        for batch, height, width in SIZES:
            x = torch.rand(batch, channels, height, width, generator=generator)
            expected, found = network(x), other(x)
            if expected.shape != found.shape:
                return float("inf")
            worst = max(worst, (expected - found).abs().max().item())
    return worst
