"""Small versions of the images, all of one size: enough to recognize copies and outliers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from project.data.images import center_window

SIDE = 32
COMPARED = 16  # pixels a side that images are compared at: what a lossy format does to edges is averaged out
MAX_IMAGES = 2500
# Least and largest distance (root mean square, against the contrast) below which two images are taken for copies:
# between these a quarter of what the third nearest neighbor of an image is away, the median over all images. Drawings
# and digits resemble each other more than photographs do.
DISTANCE = (0.05, 0.2)

Name = tuple[str, str]  # an image's, and its split's


@dataclass
class Thumbnails:
    """What is known of N images of a data module: arrays of float32."""

    names: list[Name]
    small: np.ndarray  # (N, C, 32, 32), in [0, 1]; of a folder pair the input's channels, then the target's
    contrast: np.ndarray  # (N,), standard deviation of the image's liveliest channel; the smaller of a pair's two
    sharpness: np.ndarray  # (N,), see `sharpness`
    area: np.ndarray  # pixels of each file
    aspect: np.ndarray  # width by height of each file
    copies: list[tuple[Name, Name]]  # of all images there are: equal byte for byte, or as far as a person can see

    @classmethod
    def of(cls, data: Any) -> Thumbnails:
        """Look at all digests of a data module, and at no more than 2500 images."""
        everything = [(image, split, n) for split, images in data.images.items() for n, image in enumerate(images)]
        digests = defaultdict(list)
        for image, split, _ in everything:
            digests[image.digest].append((image.name, split))
        copies = [(group[0], other) for group in digests.values() for other in group[1:]]
        stores = {split: data.dataset(split).store for split, images in data.images.items() if images}
        names, small, rows = [], [], []
        for position in np.random.default_rng(0).permutation(len(everything))[:MAX_IMAGES]:
            image, split, number = everything[position]
            sides = [stores[split][number], *([stores[split].target(number)] if stores[split].has_targets else [])]
            names.append((image.name, split))
            small.append(np.concatenate([thumbnail(side) for side in sides]))
            contrast = min(float(side[::2, ::2].std((0, 1)).max()) / 255 for side in sides)
            rows.append((contrast, sharpness(sides[0]), image.width * image.height, image.width / image.height))
        pixels, known = np.stack(small), {frozenset(copy) for copy in copies}
        for one, other in _near(pixels):
            if frozenset((names[one], names[other])) not in known and _same_tone(pixels[one], pixels[other]):
                copies.append((names[one], names[other]))
        return cls(names, pixels, *np.array(rows, np.float32).T, copies)

    def share(self, names: set[Name], split: str) -> float:
        """Which share of a split's images these are."""
        return min(1.0, sum(where == split for _, where in names) / max(1, sum(s == split for _, s in self.names)))


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) -> float32 (C, 32, 32) in [0, 1], each pixel the mean of an area."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image = image.resize((SIDE, SIDE), Image.Resampling.BOX if min(image.size) >= SIDE else Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).reshape(SIDE, SIDE, -1).transpose(2, 0, 1) / 255


def sharpness(pixels: np.ndarray) -> float:
    """The mean absolute Laplacian of the middle, at most 512 pixels a side, against its standard deviation."""
    gray = pixels[center_window(*pixels.shape[:2], 512)].mean(2, dtype=np.float32)
    if min(gray.shape) < 3:
        return 0.0
    laplacian = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1] - 4 * gray[1:-1, 1:-1]
    return float(np.abs(laplacian).mean() / max(float(gray.std()), 1.0))


def _near(small: np.ndarray) -> list[tuple[int, int]]:
    """Pairs whose patterns of light and color differ by next to nothing."""
    total, step = len(small), SIDE // COMPARED
    rows = small.reshape(total, -1, COMPARED, step, COMPARED, step).mean((3, 5)).reshape(total, -1)
    rows = rows - rows.mean(1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    found, thirds, third = [], [], min(3, total - 1)
    for start in range(0, total, 256):
        # Of two vectors of length 1, c apart in correlation: the distance is sqrt(2 - 2c).
        distance = np.sqrt(np.maximum(2 - 2 * (rows[start : start + 256] @ rows.T), 0))
        thirds.append(np.partition(distance, third, axis=1)[:, third])
        ones, others = np.nonzero(distance < DISTANCE[1])
        found += [(distance[one, other], start + one, other) for one, other in zip(ones, others, strict=True)]
    limit = float(np.clip(np.median(np.concatenate(thirds)) / 4, *DISTANCE))
    return [(int(one), int(other)) for distance, one, other in found if one < other and distance < limit]


def _same_tone(one: np.ndarray, other: np.ndarray) -> bool:
    low, high = sorted((float(one.std()), float(other.std())))
    if low < 0.02:  # blank ones are alike, and copies of nothing
        return False
    return high < 1.5 * low and bool(np.abs(one.mean((1, 2)) - other.mean((1, 2))).max() < 0.04)
