"""Hints without their places: which colors an image has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from project.color import gray
from project.data.pairs.hints import Hints, Point, colors_of
from project.data.pairs.laws import Law
from project.data.pairs.patches import Position
from workbench.errors import UserError


class PaletteHints(Hints):
    """The same colors without their places: slots of 3 constant planes of color and 1 of mask, dark colors first.

    Args:
        colors: number of slots; each takes 4 planes of the input.
        none: share of the training images that get no color (0 to 1), so that the network learns to do without.
        all: share of the training images that have every slot filled (0 to 1).
        count_p: the others get 1, 2, 3, ... colors by the geometric law, 1 / count_p on average, as far as slots go.
        patch: side in pixels of the squares whose mean colors are taken in training, or [low, high].
        position: where these lie: uniform (anywhere) or gaussian (more often in the middle).
        noise: standard deviation of what is added to training's colors, on the scale of 0 to 1.
        levels: round each channel of training's colors to so many values; 0 does not.
        drop: share of the training images that lose colors, and the share of their colors that they lose.
        eval_count: exact colors of each image in validation and test.
        eval_patch: side of the squares in validation and test, in pixels.

    Raises:
        UserError: impossible values.
    """

    def __init__(
        self,
        colors: int = 8,
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
        if colors < 1:
            raise UserError(f"data.pairs.hints.colors is {colors}: it must be at least 1.")
        self.law = Law(none, all, count_p, colors, patch, position, noise, levels, drop, eval_count, eval_patch)
        self.slots = colors
        self.channels = 4 * colors
        self.eval_count = eval_count

    def drawn(self, picture: Tensor) -> Tensor:
        patches, colors, _ = self.law.training(picture)
        return self._planes(colors, patches.there, *picture.shape[2:])

    def exact(self, picture: Tensor, seed: Tensor, count: int) -> Tensor:
        patches, colors = self.law.evaluation(picture, seed, min(count, self.slots))
        return self._planes(colors, patches.there, *picture.shape[2:])

    def given(self, height: int, width: int, points: list[Point]) -> Tensor:
        if len(points) > self.slots:
            raise UserError(
                f"The palette has {len(points)} colors, and this model takes at most {self.slots} "
                "(data.pairs.hints.colors of its training)."
            )
        colors = colors_of(points)
        return self._planes(colors, torch.ones_like(colors[..., 0], dtype=torch.bool), height, width)

    def view(self, planes: Tensor, condition: Tensor) -> Tensor:
        """The colors as a strip along the lower edge of the condition, a sixth of its height."""
        height, width = planes.shape[2:]
        slot = torch.arange(width, device=planes.device) * self.slots // width
        column = planes[..., 0, 0].unflatten(1, (self.slots, 4))[:, slot].transpose(1, 2)  # (B, 4, W)
        strip = torch.arange(height, device=planes.device) >= height - max(1, height // 6)
        shown = strip[:, None] & (column[:, 3:, None] > 0)
        return torch.where(shown, column[:, :3, None], condition.expand(-1, 3, -1, -1)).clamp(0, 1)

    def _planes(self, colors: Tensor, there: Tensor, height: int, width: int) -> Tensor:
        """(B, N, 3) colors and which of them are there, (B, N) -> (B, channels, H, W)."""
        light = gray(colors.transpose(1, 2)[..., None])[:, 0, :, 0].masked_fill(~there, 2.0)  # none: behind white
        order = light.argsort(dim=1, stable=True)
        table = torch.cat([colors, torch.ones_like(colors[..., :1])], dim=2) * there[..., None]
        table = table.gather(1, order[..., None].expand(-1, -1, 4))
        table = F.pad(table, (0, 0, 0, self.slots - table.shape[1]))
        return table.flatten(1)[..., None, None].expand(-1, -1, height, width)
