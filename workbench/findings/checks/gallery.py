"""Small versions of the images, all of one size: enough to know copies and odd ones by."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from project.data.images import ImageRecord

SIDE = 32
"""Pixels a side of a thumbnail."""
MOST = 2500
"""Images of all splits that are looked at, evenly spread."""
SECONDS = 25.0
COARSE = 16
"""Pixels a side that images are compared at: what a lossy format does to edges and colors is averaged out."""
APART = (0.05, 0.2)
"""Least and largest distance (root mean square, against the contrast) below which two images are taken for copies:
between these a quarter of what the third nearest neighbor of an image is away, the median over all images. Drawings
and digits resemble each other more than photographs do."""
TONE = 0.04
"""The difference of their means that goes with it, on the scale of 0 to 1."""
STRONGER = 1.5
"""How much more contrast one may have than the other."""


@dataclass(frozen=True)
class Copy:
    """Two images that show the same.

    Attributes:
        one: The first's name.
        other: The second's.
        splits: Where they lie.
        exact: Whether their files are the same, byte for byte.
    """

    one: str
    other: str
    splits: tuple[str, str]
    exact: bool


@dataclass
class Gallery:
    """The thumbnails.

    Attributes:
        names: Of the images that were looked at.
        splits: Where each lies.
        small: float32, (N, C, 32, 32), in [0, 1]; of a folder pair the input's channels, then the target's.
        spread: float32, (N,), the standard deviation of each image's liveliest channel; the smaller of a pair's two.
        sharp: float32, (N,), the mean absolute Laplacian of each image at its own size.
        area: Pixels of each file.
        aspect: Width by height of each file.
        total: Images in all splits.
        exact: Groups of byte-identical files, over all images: (name, split) of each.
    """

    names: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    small: np.ndarray = field(default_factory=lambda: np.zeros((0, 3, SIDE, SIDE), np.float32))
    spread: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    sharp: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    area: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    aspect: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    total: int = 0
    exact: list[list[tuple[str, str]]] = field(default_factory=list)

    @classmethod
    def of(cls, data: Any, pictures: dict[str, Sequence[ImageRecord]]) -> Gallery:
        """Look at the images of a data module: digests of all, thumbnails of at most 2500 and for 25 seconds."""
        everything = [(split, number) for split, group in pictures.items() for number in range(len(group))]
        gallery = cls(total=len(everything))
        groups = defaultdict(list)
        for split, number in everything:
            groups[pictures[split][number].digest].append((pictures[split][number].name, split))
        gallery.exact = [group for group in groups.values() if len(group) > 1]
        deadline = time.monotonic() + SECONDS
        stores = {split: data.dataset(split).store for split in pictures if pictures[split]}
        small, rows = [], []
        # In a scattered order, so that a time that runs out leaves no split unseen.
        chosen = np.random.default_rng(0).permutation(len(everything))[:MOST]
        for split, number in (everything[position] for position in chosen):
            store, picture = stores[split], pictures[split][number]
            sides = [store[number], *([store.target(number)] if store.has_targets else [])]
            small.append(np.concatenate([thumbnail(side) for side in sides]))
            spread = min(float(side[::2, ::2].std((0, 1)).max()) / 255 for side in sides)
            rows.append((spread, sharpness(sides[0]), picture.width * picture.height, picture.width / picture.height))
            gallery.names.append(picture.name)
            gallery.splits.append(split)
            if time.monotonic() > deadline:
                break
        if rows:
            gallery.small = np.stack(small)
            gallery.spread, gallery.sharp, gallery.area, gallery.aspect = np.array(rows, np.float32).T
        return gallery

    def copies(self) -> list[Copy]:
        """Pairs of images that show the same: byte for byte, or as far as a person can tell."""
        found: list[Copy] = []
        known: set[frozenset[str]] = set()
        for group in self.exact:
            for name, split in group[1:]:
                known.add(frozenset((group[0][0], name)))
                found.append(Copy(group[0][0], name, (group[0][1], split), exact=True))
        for one, other in self._close():
            names = self.names[one], self.names[other]
            if frozenset(names) not in known and self._same_tone(one, other):
                found.append(Copy(*names, (self.splits[one], self.splits[other]), exact=False))
        return found

    def _close(self) -> list[tuple[int, int]]:
        """Pairs whose patterns of light and color differ by next to nothing."""
        total = len(self.names)
        if total < 2:
            return []
        step = SIDE // COARSE
        rows = self.small.reshape(total, -1, COARSE, step, COARSE, step).mean((3, 5)).reshape(total, -1)
        rows = rows - rows.mean(1, keepdims=True)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
        found, thirds = [], []
        for start in range(0, total, 256):
            # Of two vectors of length 1, c apart in correlation: the distance is sqrt(2 - 2c).
            distance = np.sqrt(np.maximum(2 - 2 * (rows[start : start + 256] @ rows.T), 0))
            thirds.append(np.partition(distance, min(3, total - 1), axis=1)[:, min(3, total - 1)])
            ones, others = np.nonzero(distance < APART[1])
            found += [(distance[one, other], start + one, other) for one, other in zip(ones, others, strict=True)]
        limit = float(np.clip(np.median(np.concatenate(thirds)) / 4, *APART))
        return [(int(one), int(other)) for apart, one, other in found if one < other and apart < limit]

    def _same_tone(self, one: int, other: int) -> bool:
        a, b = self.small[one], self.small[other]
        low, high = sorted((float(a.std()), float(b.std())))
        if low < 0.02:  # blank ones are alike, and copies of nothing
            return False
        return high < STRONGER * low and bool(np.abs(a.mean((1, 2)) - b.mean((1, 2))).max() < TONE)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) -> float32 (C, 32, 32) in [0, 1], each pixel the mean of an area."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image = image.resize((SIDE, SIDE), Image.Resampling.BOX if min(image.size) >= SIDE else Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).reshape(SIDE, SIDE, -1).transpose(2, 0, 1) / 255


def sharpness(pixels: np.ndarray) -> float:
    """The mean absolute Laplacian of the middle, at most 512 pixels a side, against its standard deviation."""
    height, width = pixels.shape[:2]
    top, left = max(0, height - 512) // 2, max(0, width - 512) // 2
    gray = pixels[top : top + 512, left : left + 512].mean(2, dtype=np.float32)
    if min(gray.shape) < 3:
        return 0.0
    laplacian = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1] - 4 * gray[1:-1, 1:-1]
    return float(np.abs(laplacian).mean() / max(float(gray.std()), 1.0))
