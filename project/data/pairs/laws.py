"""How many hints an image gets, where from and how exact: the laws that spatial hints and palettes share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Generator, Tensor

from project.data.pairs.patches import LARGEST, Patches, Position, mean_colors, place
from workbench.errors import UserError

BLOCK = 128
SALT = 0x68696E7473  # the same number makes an image's lines: its hints are to have nothing to do with them


@dataclass(frozen=True)
class Law:
    """The arguments of `SpatialHints`, and what follows from them.

    Sources: Zhang et al. 2017, "Real-Time User-Guided Image Colorization with Learned Deep Priors", 3.1 (geometric
    count, squares of 1 to 9 pixels, Gaussian positions, now and then the whole image); PaintsChainer (noise, few
    levels); AlacGAN (half of a batch without hints).

    Raises:
        UserError: impossible values, all of them at once.
    """

    none: float
    all: float
    count_p: float
    most: int
    patch: int | tuple[int, int]
    position: Position
    noise: float
    levels: int
    drop: tuple[float, float]
    eval_count: int
    eval_patch: int

    def __post_init__(self) -> None:
        wrong = []

        def refuse(key: str, rule: str) -> None:
            wrong.append(f"data.pairs.hints.{key} is {getattr(self, key)}: it must be {rule}.")

        for key in ("none", "all", "noise"):
            if not 0 <= getattr(self, key) <= 1:
                refuse(key, "between 0 and 1")
        if not wrong and self.none + self.all > 1:
            wrong.append(
                f"data.pairs.hints.none and data.pairs.hints.all are {self.none} and {self.all}: "
                "shares of the same images, together at most 1."
            )
        if not 0 < self.count_p <= 1:
            refuse("count_p", "above 0 and at most 1 (1 / count_p is the average number of hints)")
        if self.most < 1:
            refuse("most", "at least 1")
        if len(self.sides) != 2 or not 1 <= self.sides[0] <= self.sides[1] <= LARGEST:
            refuse("patch", f"a side in pixels, or [low, high], from 1 to {LARGEST}")
        if self.position not in get_args(Position):
            refuse("position", f"one of {', '.join(get_args(Position))}")
        if self.levels < 0 or self.levels == 1:
            refuse("levels", "0 (off) or at least 2")
        if len(self.drop) != 2 or not 0 <= min(self.drop) <= max(self.drop) <= 1:
            refuse("drop", "two shares between 0 and 1: of the images, and of their hints")
        if self.eval_count < 0:
            refuse("eval_count", "0 or more")
        if not 1 <= self.eval_patch <= LARGEST:
            refuse("eval_patch", f"from 1 to {LARGEST} pixels")
        if wrong:
            raise UserError("\n".join(wrong))

    @property
    def sides(self) -> tuple[int, ...]:
        """Shortest and longest side of training's squares."""
        return tuple(self.patch) if isinstance(self.patch, tuple | list) else (self.patch, self.patch)

    def training(self, picture: Tensor) -> tuple[Patches, Tensor, Tensor]:
        """Squares in each image and their colors, made worse, from the device's own generator.

        Args:
            image: (B, 3, H, W) in [0, 1].

        Returns:
            The squares, B x `most`, of which few are there; their colors, (B, most, 3); and which images are to get
            everything, bool (B,): for these all squares are there.
        """
        batch, device = len(picture), picture.device
        lot = torch.rand(batch, device=device)
        everything = lot < self.all
        count = self._count(torch.rand(batch, device=device))
        count = count.masked_fill(lot >= 1 - self.none, 0).masked_fill(everything, self.most)
        there = torch.arange(self.most, device=device) < count[:, None]
        pictures, hints = self.drop
        if pictures and hints:
            loses = (torch.rand(batch, device=device) < pictures) & ~everything
            lost = torch.rand(batch, self.most, device=device) < hints
            there = there & ~(loses[:, None] & lost)
        low, high = self.sides
        side = torch.randint(low, high + 1, (batch, self.most), device=device)
        chance = torch.rand(batch, self.most, 2, device=device)
        patches = place(chance, side, there, high, picture.shape[2:], self.position)
        return patches, self._worse(mean_colors(picture, patches)), everything

    def evaluation(self, picture: Tensor, seed: Tensor, count: int) -> tuple[Patches, Tensor]:
        """So many squares in each image and their exact colors, from the images' numbers alone.

        Args:
            image: (B, 3, H, W) in [0, 1].
            seed: int64, (B,).
            count: how many in each; the first n of any more are those of n.

        Returns:
            The squares, B x count, all there, and their colors, (B, count, 3).
        """
        chance = torch.stack([_chances(number, count) for number in seed.tolist()]).to(picture.device)
        side = torch.full((len(picture), count), self.eval_patch, device=picture.device)
        there = torch.ones_like(side, dtype=torch.bool)
        patches = place(chance, side, there, self.eval_patch, picture.shape[2:], self.position)
        return patches, mean_colors(picture, patches)

    def _count(self, chance: Tensor) -> Tensor:
        """Geometric from 1, by inversion: more than n with the chance (1 - p) ** n."""
        base = math.log1p(-self.count_p) if self.count_p < 1 else -math.inf
        return 1 + (torch.log1p(-chance) / base).floor()

    def _worse(self, colors: Tensor) -> Tensor:
        if self.noise:
            colors = colors + torch.randn_like(colors) * self.noise
        colors = colors.clamp(0, 1)
        return (colors * (self.levels - 1)).round() / (self.levels - 1) if self.levels else colors


def _chances(number: int, count: int) -> Tensor:
    """Row and column of each hint as even numbers in [0, 1), (count, 2); fewer are the first of more.

    Drawn in blocks of one size: a generator may fill a long tensor in another order than a short one.
    """
    generator = Generator().manual_seed(number ^ SALT)
    blocks = [torch.rand(BLOCK, 2, generator=generator) for _ in range(math.ceil(count / BLOCK))]
    return torch.cat([torch.empty(0, 2), *blocks])[:count]
