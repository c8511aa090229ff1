"""Color hints: what a person would point out, as further channels of a colorizer's input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.errors import UserError


class Point(NamedTuple):
    """A hint given by hand.

    Attributes:
        x: column, in pixels: from 0 to below the image's width. A palette has no use for it.
        y: row, in pixels, likewise.
        color: red, green and blue, each in [0, 1].
    """

    x: float
    y: float
    color: tuple[float, float, float]


class Hints(ABC):
    """Makes a batch's hint planes: colors as RGB, 0 where there is none, and a mask that tells the two apart.

    In training hints are drawn on the device, from its own generator, and made worse; in evaluation they are exact and
    follow from each image and its number alone.

    Attributes:
        channels: how many planes there are.
        slots: how many hints fit in; None: any number.
        eval_count: how many hints each image gets in evaluation.
    """

    channels: int
    slots: int | None = None
    eval_count: int = 0

    def __call__(self, picture: Tensor, seed: Tensor, training: bool) -> Tensor:
        """The hints of a batch.

        Args:
            image: the colored images, float32 in [0, 1], (B, 3, H, W).
            seed: int64, (B,): in evaluation the images' own numbers.
            training: drawn and made worse; else `eval_count` exact ones.

        Returns:
            float32 in [0, 1], (B, channels, H, W).
        """
        return self.drawn(picture) if training else self.exact(picture, seed, self.eval_count)

    @abstractmethod
    def drawn(self, picture: Tensor) -> Tensor:
        """Training's hints: (B, 3, H, W) in [0, 1] -> (B, channels, H, W)."""

    @abstractmethod
    def exact(self, picture: Tensor, seed: Tensor, count: int) -> Tensor:
        """So many exact hints for each image; the first n of any more are those of n.

        Args:
            image: float32 in [0, 1], (B, 3, H, W).
            seed: int64, (B,), the images' own numbers.
            count: how many; where more than `slots`, then `slots`.

        Returns:
            (B, channels, H, W).
        """

    @abstractmethod
    def given(self, height: int, width: int, points: list[Point]) -> Tensor:
        """Hints given by hand, for one image of that size; where two overlap, the later one lies on top.

        Returns:
            (1, channels, height, width), on the CPU.

        Raises:
            UserError: a point outside the image, a color that is none, more points than `slots`.
        """

    @abstractmethod
    def view(self, planes: Tensor, condition: Tensor) -> Tensor:
        """What a person looks at.

        Args:
            planes: (B, channels, H, W).
            condition: (B, 1, H, W) in [0, 1].

        Returns:
            (B, 3, H, W) in [0, 1].
        """


class NoHints(Hints):
    """No hints and no planes for them."""

    channels = 0
    slots = 0

    def drawn(self, picture: Tensor) -> Tensor:
        return picture.new_empty(len(picture), 0, *picture.shape[2:])

    def exact(self, picture: Tensor, seed: Tensor, count: int) -> Tensor:
        return self.drawn(picture)

    def given(self, height: int, width: int, points: list[Point]) -> Tensor:
        if points:
            raise UserError("This model takes no color hints: it was trained without data.pairs.hints.")
        return torch.empty(1, 0, height, width)

    def view(self, planes: Tensor, condition: Tensor) -> Tensor:
        return condition.expand(-1, 3, -1, -1)


def colors_of(points: list[Point]) -> Tensor:
    """The points' colors, (1, N, 3).

    Raises:
        UserError: not three numbers from 0 to 1.
    """
    for number, point in enumerate(points, 1):
        if len(point.color) != 3 or not all(0 <= value <= 1 for value in point.color):
            raise UserError(
                f"Hint {number} has the color {point.color}: it must be red, green and blue, each from 0 to 1."
            )
    return torch.tensor([tuple(point.color) for point in points], dtype=torch.float32).view(1, len(points), 3)
