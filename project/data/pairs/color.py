"""From an image without colors to one with: gray photographs and line art, with hints or without."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from project.color import gray, lab_to_rgb, rgb_to_lab
from project.data.batch import Batch
from project.data.pairs.base import PairMaker, per_image
from project.data.pairs.hints import Hints
from project.data.pairs.lines import XDoG
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
