"""Line art made from images in color, to train the coloring of line art."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from project.color import gray
from project.data.pairs.base import as_range, draw
from workbench.errors import UserError

Range = float | tuple[float, float]


class LineMaker(ABC):
    """Draws the lines of a batch."""

    @abstractmethod
    def __call__(self, image: Tensor, generator: Generator | None) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] -> (B, 1, H, W): 1 is paper, 0 is ink. Generator None: the device's own."""


class XDoG(LineMaker):
    """Extended difference of Gaussians: two blurs of different width, subtracted and thresholded; the rest is ink.

    A [low, high] is drawn anew for each image and stroke.

    Source: Winnemoeller, Kyprianidis, Olsen 2012, "XDoG: An eXtended difference-of-Gaussians compendium", (3) and (5).

    Args:
        sigma: standard deviation of the narrow blur in pixels: how fine the strokes are.
        k: how many times wider the other blur is.
        gamma: weight of the wide blur; at 1, flat parts would be on the edge between paper and ink.
        epsilon: what lies below is ink; higher draws more.
        phi: how hard the edge of a stroke is.
        strokes: drawings of different widths that are mixed, in random shares for each image.
    """

    def __init__(
        self,
        sigma: Range = (0.3, 0.5),
        k: Range = (4.5, 8.0),
        gamma: float = 0.95,
        epsilon: Range = (-0.06, -0.02),
        phi: Range = (50.0, 200.0),
        strokes: int = 2,
    ) -> None:
        self.sigma = as_range(sigma, "lines.sigma", 0.1, 20)
        self.k = as_range(k, "lines.k", 1.01, 50)
        self.gamma = as_range(gamma, "lines.gamma", 0, 1)[0]
        self.epsilon = as_range(epsilon, "lines.epsilon", -1, 1)
        self.phi = as_range(phi, "lines.phi", 0.1, 1e6)
        if strokes < 1:
            raise UserError(f"data.pairs.lines.strokes is {strokes}: it must be at least 1.")
        self.strokes = strokes

    def __call__(self, image: Tensor, generator: Generator | None) -> Tensor:
        light = gray(image).repeat(self.strokes, 1, 1, 1)
        sigma, k, epsilon, phi = (
            draw(limits, light, generator) for limits in (self.sigma, self.k, self.epsilon, self.phi)
        )
        narrow = blur(light, sigma, math.ceil(3 * self.sigma[1]))
        wide = blur(light, sigma * k, math.ceil(3 * self.sigma[1] * self.k[1]))
        difference = narrow - self.gamma * wide - epsilon
        drawn = torch.where(difference >= 0, 1.0, 1 + torch.tanh(phi * difference))
        shares = torch.rand(self.strokes, len(image), 1, 1, 1, generator=generator, device=image.device)
        shares = (shares + 1e-3) / (shares + 1e-3).sum(dim=0)
        return (drawn.unflatten(0, (self.strokes, -1)) * shares).sum(dim=0).clamp(0, 1)


class AdaptiveThreshold(LineMaker):
    """Ink is what is darker than its surroundings, by more than an offset: OpenCV's adaptive threshold (Gaussian).

    Args:
        size: width of the surroundings in pixels: how far the ink of a broad stroke reaches inwards.
        offset: how much darker, on the scale of 0 to 1; lower draws more.
    """

    def __init__(self, size: Range = (7.0, 15.0), offset: Range = (0.02, 0.06)) -> None:
        self.size = as_range(size, "lines.size", 3, 255)
        self.offset = as_range(offset, "lines.offset", -1, 1)

    def __call__(self, image: Tensor, generator: Generator | None) -> Tensor:
        light = gray(image)
        size, offset = draw(self.size, light, generator), draw(self.offset, light, generator)
        around = blur(light, _sigma_of(size), math.ceil(3 * _sigma_of(self.size[1])))
        return (light > around - offset).to(light.dtype)


def blur(image: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur of (B, C, H, W), each image with its own sigma (B, 1, 1, 1) in pixels; edges are replicated."""
    from kornia.filters import filter2d_separable, get_gaussian_kernel1d

    kernel = get_gaussian_kernel1d(2 * radius + 1, sigma.view(-1, 1))
    return filter2d_separable(image, kernel, kernel, "replicate")


def _sigma_of(size: Tensor | float) -> Tensor | float:
    """The standard deviation that OpenCV gives to a window of that width."""
    return 0.3 * ((size - 1) * 0.5 - 1) + 0.8
