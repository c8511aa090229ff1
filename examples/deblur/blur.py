"""A task of one's own: sharp images out of blurred ones. Nothing in project/ was touched for it."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from project.data.pairs import Noise


class Blur(Noise):
    """Gaussian blur, and a little noise behind it.

    Args:
        radius: Standard deviation of the blur, in pixels.
        noise: Standard deviation of the noise, in units of 0..255.
    """

    def __init__(self, radius: float = 1.5, noise: float = 2.0) -> None:
        self.radius, self.noise = radius, noise

    def degrade(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        side = 2 * round(3 * self.radius) + 1
        blurred = gaussian_blur(image, [side, side], [self.radius, self.radius])
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        return blurred + noise * (self.noise / 255), None
