"""From an image without colors to one with: gray photographs and line art, with hints or without."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from project.color import gray, lab_to_rgb, rgb_to_lab
from project.data.batch import Batch
from project.data.pairs.base import PairMaker, as_range, draw, per_image
from project.data.pairs.hints import Hints
from project.data.statistics import Statistics
from workbench.errors import UserError

HINT_STD = 0.15  # of a hint plane of which some 2 % is filled; left at 1, a network is slower to look at hints at all


class Coloring(PairMaker):
    """The input is the condition, one channel, then the hints' planes; the target is the image in RGB; the do-nothing
    baseline is the condition as RGB. A coloring of your own overrides `condition_of`.

    Args:
        hints: color hints in the input (class_path of Hints: SpatialHints, PaletteHints); null: none.
    """

    def __init__(self, hints: Hints | None = None) -> None:
        self.hints = Hints() if hints is None else hints

    def condition(self, image: Tensor, target: Tensor | None, seed: Tensor, training: bool) -> Tensor:
        """What remains of a pair without its colors: the arguments of `__call__` -> (B, 1, H, W) in [0, 1]."""
        return self.condition_of(image)

    @abstractmethod
    def condition_of(self, image: Tensor) -> Tensor:
        """The condition of an image to be colored: (B, 1 or 3, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1]."""

    def baseline(self, condition: Tensor) -> Tensor:
        """The condition, (B, 1, H, W), as an RGB image."""
        return condition.expand(-1, 3, -1, -1)

    @torch.no_grad()
    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        colored = image if target is None else target
        condition = self.condition(image, target, seed, training)
        planes = self.hints(colored, seed, training)
        return Batch(torch.cat([condition, planes], dim=1), colored, self.baseline(condition), index, seed)

    @torch.no_grad()
    def with_hints(self, pair: Batch, count: int) -> Batch:
        """An evaluation batch with so many exact hints for each image; those of n are the first of any more."""
        planes = self.hints.deterministic(pair.target, pair.seed, count)
        return pair._replace(input=torch.cat([pair.input[:, :1], planes], dim=1))

    def preview(self, pair: Batch) -> dict[str, Tensor]:
        shown = {"condition": pair.baseline}
        if self.hints.channels:
            shown["hints"] = self.hints.preview(pair.input[:, 1:], pair.input[:, :1])
        return shown

    def normalization(self, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
        """The condition's are those of a gray image, to which lightness and lines are close enough."""
        planes = self.hints.channels
        gray_mean, gray_std = (gray(torch.tensor(values).view(1, -1, 1, 1)).item() for values in (mean, std))
        return [gray_mean, *[0.0] * planes], [gray_std, *[HINT_STD] * planes]  # no hint is no signal

    def check(self, statistics: Statistics, target_statistics: Statistics) -> None:
        name, mean, std = type(self).__name__, target_statistics.mean, target_statistics.std
        if len(mean) != 3:
            raise UserError(f"data.pairs {name} learns colors: set --data.channels 3.")
        if len(mean.unique()) == len(std.unique()) == 1:  # three equal channels give equal results, to the last bit
            raise UserError(
                f"All training images are gray (red, green and blue are the same), so data.pairs {name} finds no\n"
                "color to learn. Point --data.root at images in color; of a folder pair, --data.target_root."
            )


class GrayToColor(Coloring):
    """Gray photograph -> color: the condition is L / 100 of the image's CIELAB, the do-nothing baseline L alone."""

    keeps_lightness = True

    def condition_of(self, image: Tensor) -> Tensor:
        return rgb_to_lab(image.expand(-1, 3, -1, -1))[:, :1] / 100

    def baseline(self, condition: Tensor) -> Tensor:
        rgb = lab_to_rgb(F.pad(condition * 100, (0, 0, 0, 0, 0, 2)))  # a and b are 0
        return rgb[:, 1:2].expand(-1, 3, -1, -1)  # equal to the last bit


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


class LinesToColor(Coloring):
    """Line art -> color: the lines of a folder pair's first folder, or lines drawn from the images of a single one.

    Args:
        hints: as of `Coloring`.
        lines: how lines are drawn where there is one folder; null: XDoG with its defaults.
    """

    uses_target = "optional"

    def __init__(self, hints: Hints | None = None, lines: XDoG | None = None) -> None:
        super().__init__(hints)
        self.lines = XDoG() if lines is None else lines

    def condition(self, image: Tensor, target: Tensor | None, seed: Tensor, training: bool) -> Tensor:
        if target is not None:
            return self.condition_of(image)
        if training:
            return self.lines(image, None)
        drawn = [self.lines(single, generator) for single, generator in per_image(image, seed)]
        return torch.cat(drawn).to(image.device)

    def condition_of(self, image: Tensor) -> Tensor:
        return gray(image)
