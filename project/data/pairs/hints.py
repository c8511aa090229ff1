"""Color hints: what a person would point out, as further channels of a colorizer's input.

All on whole batches, on the device: nothing loops over images or squares, and no shape depends on what was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from project.color import gray
from workbench.errors import UserError

Position = Literal["uniform", "gaussian"]
MAX_SIDE = 128  # of a square, in pixels: 65535 times the pixels of a larger one overflows 32 bits
BLOCK = 128
SALT = 0x68696E7473  # an image's seed also makes its lines: its hints must have nothing to do with them


class Point(NamedTuple):
    """A hint given by hand: column and row in pixels from 0 (a palette ignores them), and RGB, each in [0, 1]."""

    x: float
    y: float
    color: tuple[float, float, float]


class Hints:
    """Makes hint planes: colors as RGB, 0 where there is none, and a mask that tells them apart; the base makes none.

    In training hints are drawn on the device, from its own generator, and degraded; in evaluation they are exact and
    follow from each image and its seed alone. Hints of your own override the four methods behind `__call__`.
    """

    channels: int = 0  # number of planes
    slots: int | None = None  # how many hints fit in; None: any number
    eval_count: int = 0  # exact hints of each image in evaluation

    def __call__(self, image: Tensor, seed: Tensor, training: bool) -> Tensor:
        """Colored images (B, 3, H, W) in [0, 1] and their seeds (B,) -> hint planes (B, channels, H, W) in [0, 1]."""
        return self.sample(image) if training else self.deterministic(image, seed, self.eval_count)

    def sample(self, image: Tensor) -> Tensor:
        """Training's hints."""
        return image.new_empty(len(image), 0, *image.shape[2:])

    def deterministic(self, image: Tensor, seed: Tensor, count: int) -> Tensor:
        """So many exact hints for each image, at most `slots`; those of n are the first of any more."""
        return self.sample(image)

    def from_points(self, height: int, width: int, points: Sequence[Point]) -> Tensor:
        """Hints given by hand, within the image and at most `slots` -> (1, channels, height, width) on the CPU.

        The later of two lies on top.
        """
        return torch.empty(1, 0, height, width)

    def preview(self, planes: Tensor, condition: Tensor) -> Tensor:
        """Planes and condition (B, 1, H, W), shown to a person: (B, 3, H, W) in [0, 1]."""
        return condition.expand(-1, 3, -1, -1)


class HintSampling(Hints):
    """How many hints an image gets, from where and how exact: shared by spatial hints and palettes.

    Sources: Zhang et al. 2017, "Real-Time User-Guided Image Colorization with Learned Deep Priors", 3.1; PaintsChainer
    (noise); AlacGAN (half of a batch without hints).

    Args:
        none: share of the training images without any hint (0 to 1), so that the network learns to do without.
        all: share of the training images with every pixel's color given, or every slot filled (0 to 1).
        count_p: the others get 1, 2, 3, ... hints, geometrically distributed: 1 / count_p on average.
        position: where they lie: uniform (anywhere) or gaussian (more often in the middle).
        eval_count: exact hints of each image in validation and test.
        eval_patch: side of the squares in validation, in test and of hints given by hand, in pixels.
    """

    most = 100  # hints of an image in training
    patch = (1, 9)  # least and largest side, in pixels, of the squares whose mean colors are taken in training
    noise = 0.02  # standard deviation of what is added to training's colors
    drop = (0.1, 0.8)  # share of the training images that lose hints, and the share of their hints that they lose

    def __init__(
        self,
        none: float = 0.3,
        all: float = 0.01,
        count_p: float = 0.125,
        position: Position = "uniform",
        eval_count: int = 10,
        eval_patch: int = 6,
    ) -> None:
        self.none, self.all, self.count_p, self.position = none, all, count_p, position
        self.eval_count, self.eval_patch = eval_count, eval_patch
        rules = {
            "none": (0 <= none <= 1, "between 0 and 1"),
            "all": (0 <= all <= 1 - none, "0 or more, and at most 1 together with data.pairs.hints.none"),
            "count_p": (0 < count_p <= 1, "above 0 and at most 1 (1 / count_p is the average number of hints)"),
            "eval_count": (eval_count >= 0, "0 or more"),
            "eval_patch": (1 <= eval_patch <= MAX_SIDE, f"from 1 to {MAX_SIDE} pixels"),
        }
        for key, (valid, rule) in rules.items():
            if not valid:
                raise UserError(f"data.pairs.hints.{key} is {getattr(self, key)}: it must be {rule}.")

    def sample_colors(self, image: Tensor) -> tuple[Patches, Tensor, Tensor]:
        """Training's squares (B x `most`), their degraded colors (B, most, 3), and which images get everything (B,)."""
        batch, device = len(image), image.device
        lot = torch.rand(batch, device=device)
        everything = lot < self.all
        # Geometric from 1, by inversion: more than n with probability (1 - p) ** n.
        base = math.log1p(-self.count_p) if self.count_p < 1 else -math.inf
        count = 1 + (torch.log1p(-torch.rand(batch, device=device)) / base).floor()
        count = count.masked_fill(lot >= 1 - self.none, 0).masked_fill(everything, self.most)
        present = torch.arange(self.most, device=device) < count[:, None]
        loses = (torch.rand(batch, device=device) < self.drop[0]) & ~everything
        lost = torch.rand(batch, self.most, device=device) < self.drop[1]
        present = present & ~(loses[:, None] & lost)
        low, high = self.patch
        side = torch.randint(low, high + 1, (batch, self.most), device=device)
        chance = torch.rand(batch, self.most, 2, device=device)
        patches = place(chance, side, present, high, image.shape[2:], self.position)
        colors = mean_colors(image, patches)
        colors = colors + torch.randn_like(colors) * self.noise
        return patches, colors.clamp(0, 1), everything

    def deterministic(self, image: Tensor, seed: Tensor, count: int) -> Tensor:
        count = count if self.slots is None else min(count, self.slots)
        chance = torch.stack([_chances(number, count) for number in seed.tolist()]).to(image.device)
        side = torch.full((len(image), count), self.eval_patch, device=image.device)
        patches = place(chance, side, torch.ones_like(side).bool(), self.eval_patch, image.shape[2:], self.position)
        return self.planes(mean_colors(image, patches), patches, image.shape[2:])

    def planes(self, colors: Tensor, patches: Patches, size: tuple[int, int]) -> Tensor:
        """The hints of colors (B, N, 3) at these squares, for images of (height, width): (B, channels, H, W)."""
        raise NotImplementedError


class SpatialHints(HintSampling):
    """Small squares of mean color at their places: 3 planes of color and 1 of mask."""

    channels = 4

    def sample(self, image: Tensor) -> Tensor:
        patches, colors, everything = self.sample_colors(image)
        planes = self.planes(colors, patches, image.shape[2:])
        return torch.where(everything[:, None, None, None], F.pad(image, (0, 0, 0, 0, 0, 1), value=1.0), planes)

    def planes(self, colors: Tensor, patches: Patches, size: tuple[int, int]) -> Tensor:
        return render(colors, patches, size)

    def from_points(self, height: int, width: int, points: Sequence[Point]) -> Tensor:
        side = torch.full((1, len(points)), min(self.eval_patch, height, width))
        center = torch.tensor([[point.y, point.x] for point in points]).view(1, len(points), 2).floor().long()
        free = torch.tensor([height, width]) - side[..., None]
        top, left = (center - side[..., None] // 2).clamp(min=0).minimum(free).unbind(-1)
        patches = Patches(top, left, side, torch.ones_like(side).bool(), self.eval_patch)
        return self.planes(_colors_of(points), patches, (height, width))

    def preview(self, planes: Tensor, condition: Tensor) -> Tensor:
        """The hints over the pale condition."""
        return torch.where(planes[:, 3:] > 0, planes[:, :3], 0.5 + 0.5 * condition)


class PaletteHints(HintSampling):
    """The colors without their places: slots of 3 constant planes of color and 1 of mask, dark colors first.

    Args:
        colors: number of slots; each takes 4 planes of the input.
    """

    def __init__(self, colors: int = 8, count_p: float = 0.25, eval_count: int = 5, **sampling) -> None:
        if colors < 1:
            raise UserError(f"data.pairs.hints.colors is {colors}: it must be at least 1.")
        super().__init__(count_p=count_p, eval_count=eval_count, **sampling)
        self.slots = self.most = colors
        self.channels = 4 * colors

    def sample(self, image: Tensor) -> Tensor:
        patches, colors, _ = self.sample_colors(image)
        return self.planes(colors, patches, image.shape[2:])

    def from_points(self, height: int, width: int, points: Sequence[Point]) -> Tensor:
        present = torch.ones(1, len(points), dtype=torch.bool)
        return self._slots(_colors_of(points), present, (height, width))

    def planes(self, colors: Tensor, patches: Patches, size: tuple[int, int]) -> Tensor:
        return self._slots(colors, patches.present, size)

    def preview(self, planes: Tensor, condition: Tensor) -> Tensor:
        """The colors as a strip along the lower edge of the condition, a sixth of its height."""
        height, width = planes.shape[2:]
        slot = torch.arange(width, device=planes.device) * self.slots // width
        column = planes[..., 0, 0].unflatten(1, (self.slots, 4))[:, slot].transpose(1, 2)  # (B, 4, W)
        strip = torch.arange(height, device=planes.device) >= height - max(1, height // 6)
        shown = strip[:, None] & (column[:, 3:, None] > 0)
        return torch.where(shown, column[:, :3, None], condition).clamp(0, 1)

    def _slots(self, colors: Tensor, present: Tensor, size: tuple[int, int]) -> Tensor:
        light = gray(colors.transpose(1, 2)[..., None])[:, 0, :, 0].masked_fill(~present, 2.0)  # absent: after white
        order = light.argsort(dim=1, stable=True)
        table = F.pad(colors, (0, 1), value=1.0) * present[..., None]
        table = table.gather(1, order[..., None].expand(-1, -1, 4))
        table = F.pad(table, (0, 0, 0, self.slots - table.shape[1]))
        return table.flatten(1)[..., None, None].expand(-1, -1, *size)


class Patches(NamedTuple):
    """N squares in each of B images, all wholly inside: first row and column and side in pixels, int64 (B, N)."""

    top: Tensor
    left: Tensor
    side: Tensor
    present: Tensor  # bool, (B, N): the others are nowhere
    max_side: int


def place(
    chance: Tensor, side: Tensor, present: Tensor, max_side: int, size: tuple[int, int], position: Position
) -> Patches:
    """Squares where chance, (B, N, 2) uniform in [0, 1) for row and column, puts them in images of (height, width).

    A side is cut to the image's shorter one. "gaussian": around the center, standard deviation a quarter of the image.
    """
    side = side.clamp(max=min(size))
    if position == "gaussian":
        chance = 0.5 + 0.25 * 2**0.5 * torch.erfinv(2 * chance - 1)
    corner = []
    for axis in range(2):
        free = size[axis] - side
        corner.append((chance[..., axis] * (free + 1)).floor().clamp(min=0).minimum(free).long())
    return Patches(*corner, side, present, min(max_side, *size))


def mean_colors(image: Tensor, patches: Patches) -> Tensor:
    """The mean color of each square: (B, C, H, W) in [0, 1] -> (B, N, C).

    Summed as integers, 65535 for white: neither the device nor the size of the batch can change the last bit.
    """
    pixel, inside = _cells(patches, image.shape[3])
    values = image.flatten(2).gather(2, pixel.flatten(1)[:, None].expand(-1, image.shape[1], -1))
    levels = (values * 65535).round_().to(torch.int32).view(*image.shape[:2], *pixel.shape[1:])
    total = (levels * inside[:, None]).sum(dim=3, dtype=torch.int32)  # no overflow: MAX_SIDE
    return (total / (patches.side.square() * 65535)[:, None]).transpose(1, 2)


def render(colors: Tensor, patches: Patches, size: tuple[int, int]) -> Tensor:
    """Colors (B, N, 3) in squares on planes of (height, width): (B, 4, H, W), RGB or 0, and a mask of 0 and 1.

    Where two overlap, the later one lies on top, on every device.
    """
    height, width = size
    batch, number = patches.present.shape
    pixel, inside = _cells(patches, width)
    order = torch.arange(1, number + 1, device=pixel.device, dtype=torch.int32)[:, None] * inside
    # The largest number wins in whatever order they arrive; writing colors directly would race on a GPU.
    top = torch.zeros((batch, height * width), device=pixel.device, dtype=torch.int32)
    top.scatter_reduce_(1, pixel.flatten(1), order.flatten(1), "amax")
    table = F.pad(colors.transpose(1, 2), (1, 0, 0, 1))  # (B, 4, 1 + N): column 0 is no square, row 3 the mask
    table[:, 3, 1:] = 1
    return table.gather(2, top.long()[:, None].expand(-1, 4, -1)).view(batch, 4, height, width)


def _cells(patches: Patches, width: int) -> tuple[Tensor, Tensor]:
    """Numbers of the pixels that squares cover, row by row, (B, N, max_side squared), and 1 where one does, else 0."""
    step = torch.arange(patches.max_side, device=patches.top.device)
    within = (step < patches.side[..., None]) & patches.present[..., None]
    inside = within[..., :, None] & within[..., None, :]
    rows = (patches.top[..., None] + step)[..., :, None] * width
    pixel = rows + (patches.left[..., None] + step)[..., None, :]
    return (pixel * inside).flatten(2), inside.flatten(2).to(torch.int32)


def _chances(seed: int, count: int) -> Tensor:
    """Row and column of each hint, uniform in [0, 1), (count, 2); fewer are the first of more.

    Drawn in blocks of one size: a generator may fill a long tensor in another order than a short one.
    """
    generator = Generator().manual_seed(seed ^ SALT)
    blocks = [torch.rand(BLOCK, 2, generator=generator) for _ in range(math.ceil(count / BLOCK))]
    return torch.cat([torch.empty(0, 2), *blocks])[:count]


def _colors_of(points: Sequence[Point]) -> Tensor:
    """The points' colors, (1, N, 3)."""
    return torch.tensor([point.color for point in points], dtype=torch.float32).view(1, len(points), 3)
