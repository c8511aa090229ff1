"""Losses that ``torch.nn`` does not have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Charbonnier(nn.Module):
    """Mean of sqrt(difference^2 + eps^2): L1 far from 0, smooth near it (Charbonnier et al. 1994).

    Args:
        eps: Where the two meet, in the unit of the pixels, which lie in [0, 1]; above 0.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two tensors of the same shape -> a scalar, at least eps."""
        return torch.sqrt((output - target).square() + self.eps**2).mean()


class PSNRLoss(nn.Module):
    """Minus the PSNR in dB, the mean over the images of a batch (as NAFNet trains, Chen et al. 2022).

    Args:
        eps: Added to each image's mean squared error, for pixels in [0, 1]; keeps the logarithm finite.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, C, H, W) tensors -> a scalar: 10 log10(error), so 10 dB better is 10 lower."""
        error = (output - target).square().mean(dim=(1, 2, 3))
        return 10 / math.log(10) * torch.log(error + self.eps).mean()
