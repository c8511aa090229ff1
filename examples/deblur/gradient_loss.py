"""A loss of one's own: any nn.Module that is called with (output, target)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import l1_loss


class GradientL1(nn.Module):
    """L1 on the images and on their differences between neighbors, which weigh edges.

    Args:
        weight: Of the differences against the images themselves.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both (B, C, H, W) -> scalar."""
        edges = sum(l1_loss(output.diff(dim=side), target.diff(dim=side)) for side in (-1, -2))
        return l1_loss(output, target) + self.weight * edges
