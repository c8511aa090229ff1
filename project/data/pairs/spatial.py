"""Hints at their places: small squares of color."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from project.data.pairs.hints import Hints, Point, colors_of
from project.data.pairs.laws import Law
from project.data.pairs.patches import Patches, Position, moved, render
from workbench.errors import UserError


class SpatialHints(Hints):
    """Small squares of mean color at their places: 3 planes of color and 1 of mask.

    Args:
        none: share of the training images that get no hint (0 to 1), so that the network learns to do without.
        all: share of the training images that get every pixel's color (0 to 1).
        count_p: the others get 1, 2, 3, ... hints by the geometric law, 1 / count_p on average.
        most: never more than so many in training.
        patch: side of the squares in pixels in training, or [low, high], one drawn for each.
        position: where they lie: uniform (anywhere) or gaussian (more often in the middle).
        noise: standard deviation of what is added to training's colors, on the scale of 0 to 1.
        levels: round each channel of training's colors to so many values; 0 does not.
        drop: share of the training images that lose hints, and the share of their hints that they lose.
        misalign: in training a hint lands up to so many pixels away from where its color was taken.
        eval_count: exact hints of each image in validation and test.
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
        patches, colors, everything = self.law.training(picture)
        if self.misalign:
            shape = (2, *patches.side.shape)
            away = torch.randint(-self.misalign, self.misalign + 1, shape, device=picture.device)
            patches = moved(patches, away[0], away[1], size)
        planes = render(colors, patches, size)
        if self.law.all:
            share = everything[:, None, None, None].to(planes.dtype)
            planes[:, :3].lerp_(picture, share)  # 0 or 1, so one or the other to the last bit
            planes[:, 3:].lerp_(torch.ones_like(share), share)
        return planes

    def exact(self, picture: Tensor, seed: Tensor, count: int) -> Tensor:
        patches, colors = self.law.evaluation(picture, seed, count)
        return render(colors, patches, picture.shape[2:])

    def given(self, height: int, width: int, points: list[Point]) -> Tensor:
        for number, point in enumerate(points, 1):
            if not (0 <= point.x < width and 0 <= point.y < height):
                raise UserError(
                    f"Hint {number} lies at x {point.x:g}, y {point.y:g}: outside the image of "
                    f"{width} x {height} pixels, whose x runs from 0 to {width - 1} and y from 0 to {height - 1}."
                )
        colors = colors_of(points)
        side = torch.full((1, len(points)), min(self.law.eval_patch, height, width))
        places = torch.tensor([[point.y, point.x] for point in points]).view(1, len(points), 2).floor().long()
        corner = places - side[..., None] // 2
        patches = Patches(corner[..., 0], corner[..., 1], side, torch.ones_like(side).bool(), self.law.eval_patch)
        return render(colors, moved(patches, 0, 0, (height, width)), (height, width))

    def view(self, planes: Tensor, condition: Tensor) -> Tensor:
        """The hints over the pale condition: a little larger than they are and with a rim, so that they can be seen."""
        colors, mask = planes[:, :3], planes[:, 3:]
        grow = max(1, max(planes.shape[2:]) // 64)
        larger, rim = _dilate(mask, grow), _dilate(mask, grow + 1)
        # Where a hint has grown it has the mean color of what it has grown from.
        window = 2 * grow + 1
        near = [F.avg_pool2d(plane, window, stride=1, padding=grow) for plane in (colors * mask, mask)]
        grown = torch.where(mask > 0, colors, near[0] / near[1].clamp_min(1e-6))
        picture = (0.5 + 0.5 * condition).expand(-1, 3, -1, -1)
        return torch.where(larger > 0, grown, picture * (1 - rim)).clamp(0, 1)


def _dilate(mask: Tensor, pixels: int) -> Tensor:
    return F.max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)
