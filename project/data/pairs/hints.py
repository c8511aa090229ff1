"""Colour hints: what a person would point out, as further channels of a colouriser's input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from project.colour import grey
from project.data.pairs.laws import Law
from project.data.pairs.patches import Patches, Position, moved, render
from project.errors import UserError


class Point(NamedTuple):
    """A hint given by hand.

    Attributes:
        x: column, in pixels: from 0 to below the picture's width. A palette has no use for it.
        y: row, in pixels, likewise.
        colour: red, green and blue, each in [0, 1].
    """

    x: float
    y: float
    colour: tuple[float, float, float]


class Hints(ABC):
    """Makes a batch's hint planes: colours as RGB, 0 where there is none, and a mask that tells the two apart.

    In training hints are drawn on the device, from its own generator, and made worse; in evaluation they are exact and
    follow from each picture and its number alone.

    Attributes:
        channels: how many planes there are.
        slots: how many hints fit in; None: any number.
        eval_count: how many hints each picture gets in evaluation.
    """

    channels: int
    slots: int | None = None
    eval_count: int = 0

    def __call__(self, picture: Tensor, seed: Tensor, training: bool) -> Tensor:
        """The hints of a batch.

        Args:
            picture: the coloured pictures, float32 in [0, 1], (B, 3, H, W).
            seed: int64, (B,): in evaluation the pictures' own numbers.
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
        """So many exact hints for each picture; the first n of any more are those of n.

        Args:
            picture: float32 in [0, 1], (B, 3, H, W).
            seed: int64, (B,), the pictures' own numbers.
            count: how many; where more than `slots`, then `slots`.

        Returns:
            (B, channels, H, W).
        """

    @abstractmethod
    def given(self, height: int, width: int, points: list[Point]) -> Tensor:
        """Hints given by hand, for one picture of that size; where two overlap, the later one lies on top.

        Returns:
            (1, channels, height, width), on the CPU.

        Raises:
            UserError: a point outside the picture, a colour that is none, more points than `slots`.
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
            raise UserError("This model takes no colour hints: it was trained without data.pairs.hints.")
        return torch.empty(1, 0, height, width)

    def view(self, planes: Tensor, condition: Tensor) -> Tensor:
        return condition.expand(-1, 3, -1, -1)


class SpatialHints(Hints):
    """Small squares of mean colour at their places: 3 planes of colour and 1 of mask.

    Args:
        none: share of the training pictures that get no hint (0 to 1), so that the network learns to do without.
        all: share of the training pictures that get every pixel's colour (0 to 1).
        count_p: the others get 1, 2, 3, ... hints by the geometric law, 1 / count_p on average.
        most: never more than so many in training.
        patch: side of the squares in pixels in training, or [low, high], one drawn for each.
        position: where they lie: uniform (anywhere) or gaussian (more often in the middle).
        noise: standard deviation of what is added to training's colours, on the scale of 0 to 1.
        levels: round each channel of training's colours to so many values; 0 does not.
        drop: share of the training pictures that lose hints, and the share of their hints that they lose.
        misalign: in training a hint lands up to so many pixels away from where its colour was taken.
        eval_count: exact hints of each picture in validation and test.
        eval_patch: side of the squares in validation, in test and of hints given by hand, in pixels.

    Raises:
        UserError: impossible values.
    """

    channels = 4

    def __init__(
        self,
        none: float = 0.3,
        all: float = 0.01,
        count_p: float = 0.125,
        most: int = 100,
        patch: int | tuple[int, int] = (1, 9),
        position: Position = "uniform",
        noise: float = 0.02,
        levels: int = 0,
        drop: tuple[float, float] = (0.1, 0.8),
        misalign: int = 0,
        eval_count: int = 10,
        eval_patch: int = 6,
    ) -> None:
        self.law = Law(none, all, count_p, most, patch, position, noise, levels, drop, eval_count, eval_patch)
        if misalign < 0:
            raise UserError(f"data.pairs.hints.misalign is {misalign}: it must be 0 or more, in pixels.")
        self.misalign = misalign
        self.eval_count = eval_count

    def drawn(self, picture: Tensor) -> Tensor:
        size = picture.shape[2:]
        patches, colours, everything = self.law.training(picture)
        if self.misalign:
            shape = (2, *patches.side.shape)
            away = torch.randint(-self.misalign, self.misalign + 1, shape, device=picture.device)
            patches = moved(patches, away[0], away[1], size)
        planes = render(colours, patches, size)
        if self.law.all:
            whole = torch.cat([picture, torch.ones_like(picture[:, :1])], dim=1)
            planes = torch.where(everything[:, None, None, None], whole, planes)
        return planes

    def exact(self, picture: Tensor, seed: Tensor, count: int) -> Tensor:
        patches, colours = self.law.evaluation(picture, seed, count)
        return render(colours, patches, picture.shape[2:])

    def given(self, height: int, width: int, points: list[Point]) -> Tensor:
        for number, point in enumerate(points, 1):
            if not (0 <= point.x < width and 0 <= point.y < height):
                raise UserError(
                    f"Hint {number} lies at x {point.x:g}, y {point.y:g}: outside the picture of "
                    f"{width} x {height} pixels, whose x runs from 0 to {width - 1} and y from 0 to {height - 1}."
                )
        colours = _colours(points)
        side = torch.full((1, len(points)), min(self.law.eval_patch, height, width))
        places = torch.tensor([[point.y, point.x] for point in points]).view(1, -1, 2).floor().long()
        corner = places - side[..., None] // 2
        patches = Patches(corner[..., 0], corner[..., 1], side, torch.ones_like(side).bool(), self.law.eval_patch)
        return render(colours, moved(patches, 0, 0, (height, width)), (height, width))

    def view(self, planes: Tensor, condition: Tensor) -> Tensor:
        """The hints over the pale condition: a little larger than they are and with a rim, so that they can be seen."""
        colours, mask = planes[:, :3], planes[:, 3:]
        grow = max(1, max(planes.shape[2:]) // 64)
        larger, rim = _dilate(mask, grow), _dilate(mask, grow + 1)
        # Where a hint has grown it has the mean colour of what it has grown from.
        window = 2 * grow + 1
        near = [F.avg_pool2d(plane, window, stride=1, padding=grow) for plane in (colours * mask, mask)]
        grown = torch.where(mask > 0, colours, near[0] / near[1].clamp_min(1e-6))
        picture = (0.5 + 0.5 * condition).expand(-1, 3, -1, -1)
        return torch.where(larger > 0, grown, picture * (1 - rim)).clamp(0, 1)


class PaletteHints(Hints):
    """The same colours without their places: slots of 3 constant planes of colour and 1 of mask, dark colours first.

    Args:
        colours: number of slots; each takes 4 planes of the input.
        none: share of the training pictures that get no colour (0 to 1), so that the network learns to do without.
        all: share of the training pictures that have every slot filled (0 to 1).
        count_p: the others get 1, 2, 3, ... colours by the geometric law, 1 / count_p on average, as far as slots go.
        patch: side in pixels of the squares whose mean colours are taken in training, or [low, high].
        position: where these lie: uniform (anywhere) or gaussian (more often in the middle).
        noise: standard deviation of what is added to training's colours, on the scale of 0 to 1.
        levels: round each channel of training's colours to so many values; 0 does not.
        drop: share of the training pictures that lose colours, and the share of their colours that they lose.
        eval_count: exact colours of each picture in validation and test.
        eval_patch: side of the squares in validation and test, in pixels.

    Raises:
        UserError: impossible values.
    """

    def __init__(
        self,
        colours: int = 8,
        none: float = 0.3,
        all: float = 0.01,
        count_p: float = 0.25,
        patch: int | tuple[int, int] = (1, 9),
        position: Position = "uniform",
        noise: float = 0.02,
        levels: int = 0,
        drop: tuple[float, float] = (0.1, 0.8),
        eval_count: int = 5,
        eval_patch: int = 6,
    ) -> None:
        if colours < 1:
            raise UserError(f"data.pairs.hints.colours is {colours}: it must be at least 1.")
        self.law = Law(none, all, count_p, colours, patch, position, noise, levels, drop, eval_count, eval_patch)
        self.slots = colours
        self.channels = 4 * colours
        self.eval_count = eval_count

    def drawn(self, picture: Tensor) -> Tensor:
        patches, colours, _ = self.law.training(picture)
        return self._planes(colours, patches.there, *picture.shape[2:])

    def exact(self, picture: Tensor, seed: Tensor, count: int) -> Tensor:
        patches, colours = self.law.evaluation(picture, seed, min(count, self.slots))
        return self._planes(colours, patches.there, *picture.shape[2:])

    def given(self, height: int, width: int, points: list[Point]) -> Tensor:
        if len(points) > self.slots:
            raise UserError(
                f"The palette has {len(points)} colours, and this model takes at most {self.slots} "
                "(data.pairs.hints.colours of its training)."
            )
        colours = _colours(points)
        return self._planes(colours, torch.ones_like(colours[..., 0], dtype=torch.bool), height, width)

    def view(self, planes: Tensor, condition: Tensor) -> Tensor:
        """The colours as a strip along the lower edge of the condition, a sixth of its height."""
        height, width = planes.shape[2:]
        slot = torch.arange(width, device=planes.device) * self.slots // width
        column = planes.unflatten(1, (self.slots, 4))[:, slot, :, 0, 0].transpose(1, 2)  # (B, 4, W)
        strip = torch.arange(height, device=planes.device) >= height - max(1, height // 6)
        shown = strip[:, None] & (column[:, 3:, None] > 0)
        return torch.where(shown, column[:, :3, None], condition.expand(-1, 3, -1, -1)).clamp(0, 1)

    def _planes(self, colours: Tensor, there: Tensor, height: int, width: int) -> Tensor:
        """(B, N, 3) colours and which of them are there, (B, N) -> (B, channels, H, W)."""
        light = grey(colours.transpose(1, 2)[..., None])[:, 0, :, 0].masked_fill(~there, 2.0)  # none: behind white
        order = light.argsort(dim=1, stable=True)
        table = torch.cat([colours, torch.ones_like(colours[..., :1])], dim=2) * there[..., None]
        table = table.gather(1, order[..., None].expand(-1, -1, 4))
        table = F.pad(table, (0, 0, 0, self.slots - table.shape[1]))
        return table.flatten(1)[..., None, None].expand(-1, -1, height, width)


def _colours(points: list[Point]) -> Tensor:
    """The points' colours, (1, N, 3)."""
    for number, point in enumerate(points, 1):
        if len(point.colour) != 3 or not all(0 <= value <= 1 for value in point.colour):
            raise UserError(
                f"Hint {number} has the colour {point.colour}: it must be red, green and blue, each from 0 to 1."
            )
    return torch.tensor([tuple(point.colour) for point in points], dtype=torch.float32).view(1, -1, 3)


def _dilate(mask: Tensor, pixels: int) -> Tensor:
    return F.max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)
