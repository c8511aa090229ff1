"""Self-attention between the places of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 32
"""Channels of a head, about."""

GIVE = 0.3
"""What attention adds starts so much smaller: at first all places match alike, and it adds their mean."""


class SelfAttention(nn.Module):
    """Every place looks at every other, and adds what it takes from those that match.

    Spreads what is known at one place to all places of its kind in a single layer, which convolutions do over many.
    Scaled dot-product attention (Vaswani et al. 2017, "Attention Is All You Need", 3.2) between pixels, as in
    Ho et al. 2020, "Denoising Diffusion Probabilistic Models", appendix B.

    Args:
        channels: Channels in and out.

    The work grows with the square of the number of places: for the lower levels of a UNet.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(n for n in range(max(1, channels // HEAD), 0, -1) if channels % n == 0)
        self.norm = nn.GroupNorm(1, channels)  # not place by place: a hint's place is to stay louder than the others
        self.look = nn.Linear(channels, 3 * channels)
        self.give = nn.Linear(channels, channels)
        for layer in (self.look, self.give):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.give.weight.mul_(GIVE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        batch, channels, height, width = x.shape
        places = self.norm(x).permute(0, 2, 3, 1)  # in channels_last a view
        parts = self.look(places).view(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        taken = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return x + self.give(taken.reshape(batch, height, width, channels)).permute(0, 3, 1, 2)
