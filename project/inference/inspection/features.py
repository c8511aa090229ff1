"""The patches that each feature map of a layer answers to most, and what in them it answers to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from project.inference.inspection.drawing import (
    BOTH_WAYS,
    beside,
    colored,
    fit,
    framed,
    mosaic,
    picture,
    scale,
    stack,
    text,
    under,
    window,
)
from project.inference.inspection.explain import explain
from project.inference.inspection.layers import UpTo
from project.inference.inspection.norms import norms_of
from project.inference.inspection.receptive import Box, ReceptiveField

BEST = 9
CELL = 96
"""Pixels that a patch is enlarged or made smaller to, as far as whole multiples go."""
MOST, LEAST = 0.9, 4
"""Share of an explanation that the patches hold; and how far they reach from their middle at least, in pixels."""
LOUD = 0.99
"""Quantile of an explanation that gets the strongest color: a few odd pixels would leave all others white."""


class Find(NamedTuple):
    """A place where a feature map answers strongly.

    Attributes:
        value: The activation.
        image: Number of the image.
        y: Row of the unit in its map.
        x: Column.
    """

    value: float
    picture: int
    y: int
    x: int


class Strongest:
    """The places where each feature map answers most, kept while images pass by; nothing else is.

    Args:
        field: What a unit sees: of one image only places are taken whose patches overlap by half at most.
        count: Places kept for each map.
    """

    def __init__(self, field: ReceptiveField, count: int = BEST) -> None:
        self.count = count
        self.reach = tuple(
            max(1, math.ceil(size / stride / 2)) for size, stride in zip(field.size, field.stride, strict=True)
        )
        self._values: Tensor | None = None  # (maps, count)
        self._places = torch.empty(0)  # (maps, count, 3): image, y, x
        self._lowest = torch.empty(0)

    def update(self, maps: Tensor, numbers: Sequence[int]) -> None:
        """Look at the feature maps (B, maps, h, w) of the images of these numbers."""
        maps = maps.float()
        for single, number in zip(maps, numbers, strict=True):
            width = single.shape[2]
            if self._values is None:
                self._values = single.new_full((len(single), 0), -math.inf)
                self._places = single.new_zeros((len(single), 0, 3), dtype=torch.long)
                self._lowest = single.new_full((len(single),), math.inf)
            peaks = single.masked_fill(~self._peaks(single), -math.inf).flatten(1)
            values, at = peaks.topk(min(self.count, peaks.shape[1]), dim=1)
            places = torch.stack([torch.full_like(at, number), at // width, at % width], dim=2)
            values, places = torch.cat([self._values, values], 1), torch.cat([self._places, places], 1)
            self._values, order = values.topk(min(self.count, values.shape[1]), dim=1)
            self._places = places.gather(1, order[..., None].expand(-1, -1, 3))
            self._lowest = torch.minimum(self._lowest, single.amin(dim=(1, 2)))

    def _peaks(self, maps: Tensor) -> Tensor:
        """Where no other place within reach is higher; of a plateau, its first place alone."""
        spread = (maps.amax(dim=(1, 2)) - maps.amin(dim=(1, 2)))[:, None, None]
        ramp = torch.linspace(0, 1, maps[0].numel(), device=maps.device).view(maps.shape[1:])
        maps = maps - ramp * torch.where(spread > 0, 1e-4 * spread, 1)
        highest = maps
        for axis, reach in enumerate(self.reach):
            kernel, padding = [1, 1], [0, 0]
            reach = min(reach, maps.shape[1 + axis] - 1)
            kernel[axis], padding[axis] = 2 * reach + 1, reach
            highest = F.max_pool2d(highest, kernel, stride=1, padding=padding)
        return maps >= highest

    def finds(self, maps: int) -> dict[int, list[Find]]:
        """Of the maps whose answers are the strongest on average, strongest first: their places, likewise.

        Maps that are the same everywhere, as dead ones are, are not among them.
        """
        if self._values is None:
            return {}
        alive = self._values[:, 0] > self._lowest
        there = self._values.isfinite()
        mean = self._values.where(there, 0).sum(1) / there.sum(1).clamp_min(1)
        order = mean.masked_fill(~alive, -math.inf).argsort(descending=True, stable=True)
        chosen = [number for number in order.tolist() if alive[number]][:maps]
        return {number: [Find(*found) for found in self._of(number)] for number in chosen}

    def _of(self, number: int) -> Iterable[tuple[float, int, int, int]]:
        values, places = self._values[number].tolist(), self._places[number].tolist()
        return [(value, *place) for value, place in zip(values, places, strict=True) if math.isfinite(value)]

    @property
    def same_everywhere(self) -> int:
        """How many maps are the same at every place of every image."""
        return 0 if self._values is None else int((self._values[:, 0] <= self._lowest).sum())


class Shown(NamedTuple):
    """An image of which patches are cut.

    Attributes:
        input: (1, C, H, W), what the network takes.
        view: (1 or 3, H, W) in [0, 1], the same for a person.
    """

    input: Tensor
    view: Tensor


class Reason(NamedTuple):
    """What of an image a unit answers to.

    Attributes:
        values: (h, w), of a part of the image; 0 elsewhere.
        top: Row of the image at which the part begins.
        left: Column.
    """

    values: Tensor
    top: int
    left: int

    def within(self, box: Box) -> Box:
        """A box of the image, counted from the part's own corner."""
        top, left, bottom, right = box
        return top - self.top, left - self.left, bottom - self.top, right - self.left


def draw_features(
    finds: dict[int, list[Find]],
    field: ReceptiveField,
    features: UpTo,
    nothing: Tensor,
    get: Callable[[int], Shown],
    title: str,
) -> Image.Image:
    """For each map the patches that it answers to most, and beside them what in them it answers to.

    Of what a unit could see it mostly uses the middle (Luo et al. 2016): the patches are cut to what it does use.

    Args:
        finds: Map -> its places.
        field: What a unit sees.
        features: The network as far as the layer.
        nothing: (1, C, 1, 1), an input that says nothing: the mean of the training images.
        get: Number of an image -> the image.
        title: To stand above.
    """
    wanted = [(number, find) for number, places in finds.items() for find in places]
    reasons: dict[tuple[int, Find], Reason] = {}
    for one in track(sorted({find.picture for _, find in wanted}), "Reasons", transient=True):
        whole = get(one).input
        with norms_of(features, whole):
            for number, find in wanted:
                if find.picture == one:
                    reasons[number, find] = _reason(number, find, field, features, nothing, whole)
    reach = _reach(field, [_by_distance(reason, _middle(field, find)) for (_, find), reason in reasons.items()])
    blocks = []
    for number, places in finds.items():
        patches, whys = [], []
        for find in places:
            view, reason = get(find.picture).view, reasons[number, find]
            box = _around(_middle(field, find), reach, view.shape[-2:])
            part = window(reason.values, reason.within(box), fill=0.0)
            largest = part.abs().flatten().quantile(LOUD).clamp_min(1e-12)
            patches.append(picture(window(view, box), CELL))
            whys.append(fit(colored(part / largest, BOTH_WAYS), CELL))
        heading = text(f"map {number}: {places[0].value:.3g} to {places[-1].value:.3g}", 13)
        blocks.append(stack([heading, beside([mosaic(patches, 3), mosaic(whys, 3)], gap=4)], gap=0))
    size = 2 * reach + 1
    seen = f"{size} x {size} pixels, of the {field.size[0]} x {field.size[1]} that a unit could see"
    return framed(
        under(
            stack(
                [scale(BOTH_WAYS, "lowers it", "raises it (each patch on its own scale)"), mosaic(blocks, 2, gap=10)]
            ),
            title,
            f"left: the {BEST} patches that activate each map most, strongest first; {seen}",
            "right: what in the patch changes the activation, by integrated gradients",
        )
    )


def _middle(field: ReceptiveField, find: Find) -> tuple[int, int]:
    top, left, bottom, right = field.box(find.y, find.x)
    return (top + bottom) // 2, (left + right) // 2


def _by_distance(reason: Reason, middle: tuple[int, int]) -> Tensor:
    """The share of an explanation in each square frame around a place, the innermost first."""
    height, width = reason.values.shape
    rows = (torch.arange(reason.top, reason.top + height) - middle[0]).abs()
    columns = (torch.arange(reason.left, reason.left + width) - middle[1]).abs()
    distance = torch.maximum(rows[:, None], columns)
    frames = torch.bincount(distance.flatten(), reason.values.abs().flatten().double())
    return frames / frames.sum().clamp_min(1e-12)


def _reach(field: ReceptiveField, shares: list[Tensor]) -> int:
    """Pixels from the middle within which explanations have MOST of their weight, on average."""
    longest = max(map(len, shares))
    mean = sum(F.pad(each, (0, longest - len(each))) for each in shares) / len(shares)
    return min(max(field.size) // 2, max(LEAST, int((mean.cumsum(0) < MOST).sum())))


def _around(middle: tuple[int, int], reach: int, size: Sequence[int]) -> Box:
    """A square around a place; where it is larger than the image, the whole image, and no frame around it."""
    sides = [(place - reach, place + reach + 1) for place in middle]
    sides = [(0, full) if end - start >= full else (start, end) for (start, end), full in zip(sides, size, strict=True)]
    (top, bottom), (left, right) = sides
    return top, left, bottom, right


def _reason(
    number: int,
    find: Find,
    field: ReceptiveField,
    features: UpTo,
    nothing: Tensor,
    whole: Tensor,
) -> Reason:
    """What of the image a unit answers to; found on a part that holds all that it sees."""
    box = field.box(find.y, find.x)
    top, left = (max(0, edge) // field.step * field.step for edge in box[:2])
    bottom, right = (-(-edge // field.step) * field.step for edge in box[2:])
    part = whole[..., top:bottom, left:right]
    unit = (number, find.y - int(top / field.stride[0]), find.x - int(left / field.stride[1]))
    reason = explain(features, part, nothing.expand_as(part), unit)
    return Reason(reason.cpu(), top, left)
