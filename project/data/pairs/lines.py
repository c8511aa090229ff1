"""Lines drawn from images in color, as training material for coloring line art."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from project.color import gray
from project.data.pairs.ranges import bounds, draw
from workbench.errors import UserError


class LineMaker(ABC):
    """Draws the lines of a batch."""

    @abstractmethod
    def __call__(self, image: Tensor, generator: Generator | None) -> Tensor:
        """Draws.

        Args:
            image: float32 in [0, 1], (B, C, H, W), RGB or gray.
            generator: where all random numbers come from; None: the device's own.

        Returns:
            (B, 1, H, W) in [0, 1]: 1 is paper, 0 is ink.
        """


class XDoG(LineMaker):
    """Extended difference of Gaussians: two blurs of different width, subtracted and cut off; what is left is ink.

    Each argument that takes [low, high] is drawn anew for each image and stroke.

    Source: Winnemoeller, Kyprianidis, Olsen 2012, "XDoG: An eXtended difference-of-Gaussians compendium", (3) and (5).

    Args:
        sigma: standard deviation of the narrow blur in pixels, or [low, high]: how fine the strokes are.
        k: how many times wider the other blur is, or [low, high].
        gamma: weight of the wide blur; below 1, or flat parts would be on the edge between paper and ink.
        epsilon: what lies below this is ink, or [low, high]; higher draws more.
        phi: how hard the edge of a stroke is, or [low, high].
        strokes: drawings of different widths that are mixed, in shares of each image's own.

    Raises:
        UserError: impossible values.
    """

    def __init__(
        self,
        sigma: float | tuple[float, float] = (0.3, 0.5),
        k: float | tuple[float, float] = (4.5, 8.0),
        gamma: float = 0.95,
        epsilon: float | tuple[float, float] = (-0.06, -0.02),
        phi: float | tuple[float, float] = (50.0, 200.0),
        strokes: int = 2,
    ) -> None:
        self.sigma = bounds(sigma, "lines.sigma", 0.1, 20)
        self.k = bounds(k, "lines.k", 1.01, 50)
        self.gamma = bounds(gamma, "lines.gamma", 0, 1)[0]
        self.epsilon = bounds(epsilon, "lines.epsilon", -1, 1)
        self.phi = bounds(phi, "lines.phi", 0.1, 1e6)
        if strokes < 1:
            raise UserError(f"data.pairs.lines.strokes is {strokes}: it must be at least 1.")
        self.strokes = strokes

    def __call__(self, image: Tensor, generator: Generator | None) -> Tensor:
        light = gray(image).repeat(self.strokes, 1, 1, 1)
        sigma, k, epsilon, phi = (
            draw(limits, light, generator) for limits in (self.sigma, self.k, self.epsilon, self.phi)
        )
        radius = math.ceil(3 * self.sigma[1])
        narrow = blur(light, sigma, radius)
        wide = blur(light, sigma * k, math.ceil(3 * self.sigma[1] * self.k[1]))
        difference = narrow - self.gamma * wide - epsilon
        drawn = torch.where(difference >= 0, 1.0, 1 + torch.tanh(phi * difference))
        shares = torch.rand(self.strokes, len(image), 1, 1, 1, generator=generator, device=image.device)
        shares = (shares + 1e-3) / (shares + 1e-3).sum(dim=0)
        return (drawn.unflatten(0, (self.strokes, -1)) * shares).sum(dim=0).clamp(0, 1)


class AdaptiveThreshold(LineMaker):
    """Ink is what is darker than its surroundings, by more than an offset: OpenCV's adaptive threshold (Gaussian).

    Args:
        size: width of the surroundings in pixels, or [low, high]; how far the ink of a broad stroke reaches inwards.
        offset: how much darker, on the scale of 0 to 1, or [low, high]; lower draws more.

    Raises:
        UserError: impossible values.
    """

    def __init__(
        self, size: float | tuple[float, float] = (7.0, 15.0), offset: float | tuple[float, float] = (0.02, 0.06)
    ) -> None:
        self.size = bounds(size, "lines.size", 3, 255)
        self.offset = bounds(offset, "lines.offset", -1, 1)

    def __call__(self, image: Tensor, generator: Generator | None) -> Tensor:
        light = gray(image)
        size, offset = draw(self.size, light, generator), draw(self.offset, light, generator)
        around = blur(light, _sigma_of(size), math.ceil(3 * _sigma_of(self.size[1])))
        return (light > around - offset).to(light.dtype)


def blur(picture: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur, each image with its own; at the edges the outermost pixels go on.

    Args:
        image: (B, C, H, W).
        sigma: (B, 1, 1, 1), in pixels.
        radius: pixels to either side that are looked at, for the whole batch.
    """
    from kornia.filters import filter2d_separable, get_gaussian_kernel1d

    kernel = get_gaussian_kernel1d(2 * radius + 1, sigma.view(-1, 1))
    return filter2d_separable(picture, kernel, kernel, "replicate")


def _sigma_of(size: Tensor | float) -> Tensor | float:
    """The standard deviation that OpenCV gives to a window of that width."""
    return 0.3 * ((size - 1) * 0.5 - 1) + 0.8
