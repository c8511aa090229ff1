"""Self-attention between the places of a picture."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 32  # channels of a head, about


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
        self.norm = nn.GroupNorm(1, channels)
        self.look = nn.Conv2d(channels, 3 * channels, 1)
        self.give = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        batch, channels, height, width = x.shape
        parts = self.look(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = parts.transpose(-1, -2).unbind(1)
        taken = F.scaled_dot_product_attention(query, key, value)
        return x + self.give(taken.transpose(-1, -2).reshape(batch, channels, height, width))
