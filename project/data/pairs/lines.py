"""Line art made from images in color, to train the coloring of line art."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from project.color import gray
from project.data.pairs.base import as_range, draw


class XDoG:
    """Extended difference of Gaussians: two blurs of different width, subtracted and thresholded; the rest is ink.

    A [low, high] is drawn anew for each image and stroke. The lines of each image are a random mix of `STROKES`.

    Source: Winnemoeller, Kyprianidis, Olsen 2012, "XDoG: An eXtended difference-of-Gaussians compendium", (3) and (5).

    Args:
        sigma: standard deviation of the narrow blur in pixels: how fine the strokes are.
        epsilon: what lies below is ink; higher draws more.
    """

    K = (4.5, 8.0)  # how many times wider the other blur is
    GAMMA = 0.95  # weight of the wide blur; at 1, flat parts would be on the edge between paper and ink
    PHI = (50.0, 200.0)  # how hard the edge of a stroke is
    STROKES = 2

    def __init__(
        self, sigma: float | tuple[float, float] = (0.3, 0.5), epsilon: float | tuple[float, float] = (-0.06, -0.02)
    ) -> None:
        self.sigma = as_range(sigma, "lines.sigma", 0.1, 20)
        self.epsilon = as_range(epsilon, "lines.epsilon", -1, 1)

    def __call__(self, image: Tensor, generator: Generator | None) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] -> (B, 1, H, W): 1 is paper, 0 is ink. Generator None: the device's own."""
        light = gray(image).repeat(self.STROKES, 1, 1, 1)
        sigma, k, epsilon, phi = (
            draw(limits, light, generator) for limits in (self.sigma, self.K, self.epsilon, self.PHI)
        )
        narrow = blur(light, sigma, math.ceil(3 * self.sigma[1]))
        wide = blur(light, sigma * k, math.ceil(3 * self.sigma[1] * self.K[1]))
        difference = narrow - self.GAMMA * wide - epsilon
        drawn = torch.where(difference >= 0, 1.0, 1 + torch.tanh(phi * difference))
        shares = torch.rand(self.STROKES, len(image), 1, 1, 1, generator=generator, device=image.device)
        shares = (shares + 1e-3) / (shares + 1e-3).sum(dim=0)
        return (drawn.unflatten(0, (self.STROKES, -1)) * shares).sum(dim=0).clamp(0, 1)


def blur(image: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur of (B, C, H, W), each image with its own sigma (B, 1, 1, 1) in pixels; edges are replicated."""
    from kornia.filters import filter2d_separable, get_gaussian_kernel1d

    kernel = get_gaussian_kernel1d(2 * radius + 1, sigma.view(-1, 1))
    return filter2d_separable(image, kernel, kernel, "replicate")
