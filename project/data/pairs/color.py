"""From an image without colors to one with: gray photographs and line art, with hints or without."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from project.color import LUMA, gray, lightness_to_gray, rgb_to_lab
from project.data.batch import Batch
from project.data.pairs.base import PairMaker, each_alone
from project.data.pairs.hints import Hints, NoHints, Point
from project.data.pairs.lines import LineMaker, XDoG
from project.data.statistics import Statistics
from workbench.errors import UserError

HINT_STD = 0.15
"""Of a hint plane of which some 2 % is filled: ten squares of 6 pixels on 128 x 128. Left at 1, a network is slower
to look at hints at all. The mean stays 0, so that no hint is no signal."""


class Coloring(PairMaker):
    """What the coloring of gray photographs and of line art share.

    The input is the condition, one channel, with the hints' planes behind it; the target is the image in color, RGB;
    the do-nothing answer is the condition as an RGB image. A coloring of one's own overrides `condition` and
    `condition_of`.

    Attributes:
        hints: what tells the network some of the colors.
    """

    def __init__(self, hints: Hints | None = None) -> None:
        self.hints = NoHints() if hints is None else hints

    @abstractmethod
    def condition(self, image: Tensor, target: Tensor | None, seed: Tensor, training: bool) -> Tensor:
        """What of a pair stays without its colors: the arguments of `__call__` -> (B, 1, H, W) in [0, 1]."""

    @abstractmethod
    def condition_of(self, picture: Tensor) -> Tensor:
        """An image to be colored, (B, 1 or 3, H, W) in [0, 1], as the network wants it: (B, 1, H, W) in [0, 1]."""

    def baseline(self, condition: Tensor) -> Tensor:
        """The condition, (B, 1, H, W), as an RGB image."""
        return condition.expand(-1, 3, -1, -1)

    @torch.no_grad()
    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        picture = image if target is None else target
        condition = self.condition(image, target, seed, training)
        planes = self.hints(picture, seed, training)
        return Batch(torch.cat([condition, planes], dim=1), picture, self.baseline(condition), index, seed)

    @torch.no_grad()
    def with_hints(self, pair: Batch, count: int) -> Batch:
        """The same pair with so many exact hints, from the images' own numbers.

        Args:
            pair: of this pair maker, made for evaluation.
            count: hints for each image; the first n of any more are those of n.
        """
        planes = self.hints.exact(pair.target, pair.seed, count)
        return pair._replace(input=torch.cat([pair.input[:, :1], planes], dim=1))

    @torch.no_grad()
    def input_from(self, picture: Tensor, points: list[Point]) -> Tensor:
        """The network's input for a user's image.

        Args:
            image: (1, 1 or 3, H, W) in [0, 1].
            points: hints given by hand, on this image.

        Returns:
            (1, 1 + hints.channels, H, W).

        Raises:
            UserError: the points do not fit the image or the hints.
        """
        planes = self.hints.given(*picture.shape[2:], points).to(picture.device)
        return torch.cat([self.condition_of(picture), planes], dim=1)

    def views(self, pair: Batch) -> dict[str, Tensor]:
        """The condition, and the hints over it where there are any."""
        shown = {"condition": pair.baseline}
        if self.hints.channels:
            shown["hints"] = self.hints.view(pair.input[:, 1:], pair.input[:, :1])
        return shown

    def normalization(self, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
        """The condition's are those of a gray image, which lightness and lines come near enough."""
        planes = self.hints.channels
        return [_weighted(mean), *[0.0] * planes], [_weighted(std), *[HINT_STD] * planes]

    def check(self, statistics: Statistics, target_statistics: Statistics) -> None:
        name, mean, std = type(self).__name__, target_statistics.mean, target_statistics.std
        if len(mean) != 3:
            raise UserError(
                f"data.pairs {name} learns colors, and data.channels is {len(mean)}: set --data.channels 3."
            )
        # Of three equal channels all counts are equal, so all results, to the last bit.
        if bool((mean == mean[0]).all()) and bool((std == std[0]).all()):
            raise UserError(
                f"All training images are gray (red, green and blue are the same), so data.pairs {name} finds no\n"
                "color to learn. Point --data.root at images in color; of a folder pair, --data.target_root."
            )


class GrayToColor(Coloring):
    """Gray photograph -> color: the condition is L / 100 of the image's CIELAB, the do-nothing answer L alone.

    Args:
        hints: what tells the network some of the colors (class_path of Hints: SpatialHints, PaletteHints); null: none.
    """

    keeps_lightness = True

    def __init__(self, hints: Hints | None = None) -> None:
        super().__init__(hints)

    def condition(self, image: Tensor, target: Tensor | None, seed: Tensor, training: bool) -> Tensor:
        return self.condition_of(image)

    def condition_of(self, picture: Tensor) -> Tensor:
        return rgb_to_lab(picture.expand(-1, 3, -1, -1))[:, :1] / 100

    def baseline(self, condition: Tensor) -> Tensor:
        return lightness_to_gray(condition * 100).expand(-1, 3, -1, -1)


class LinesToColor(Coloring):
    """Line art -> color: the lines of a folder pair's first folder, or lines drawn from the images of a single one.

    Args:
        hints: what tells the network some of the colors (class_path of Hints: SpatialHints, PaletteHints); null: none.
        lines: how lines are drawn where there is one folder (class_path of a LineMaker: XDoG, AdaptiveThreshold); null:
            XDoG.
    """

    partner = "may"

    def __init__(self, hints: Hints | None = None, lines: LineMaker | None = None) -> None:
        super().__init__(hints)
        self.lines = XDoG() if lines is None else lines

    def condition(self, image: Tensor, target: Tensor | None, seed: Tensor, training: bool) -> Tensor:
        if target is not None:
            return self.condition_of(image)
        if training:
            return self.lines(image, None)
        drawn = [self.lines(picture, generator) for picture, generator in each_alone(image, seed)]
        return torch.cat(drawn).to(image.device)

    def condition_of(self, picture: Tensor) -> Tensor:
        return gray(picture)


def _weighted(values: list[float]) -> float:
    return values[0] if len(values) == 1 else sum(weight * value for weight, value in zip(LUMA, values, strict=True))
