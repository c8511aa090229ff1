"""Mean and standard deviation of each channel, exact, without holding more than a few images at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.data.cache import Cache, key_of
from project.data.images import ImageRecord, run_parallel
from project.data.pixels import PixelStore


@dataclass
class Statistics:
    """Of pixels in [0, 1]: float32, (C,) each; the std is divided by the number of pixels, 0 for a constant channel."""

    mean: Tensor
    std: Tensor
    pixels: int

    def to_plain(self) -> dict[str, Any]:
        """As lists and numbers."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "pixels": self.pixels}

    def scale(self, input_range: str) -> tuple[list[float], list[float]]:
        """(mean, std) by which images are normalized, for `data.input_range`."""
        channels = len(self.mean)
        if input_range == "zero_one":
            return [0.0] * channels, [1.0] * channels
        if input_range == "minus_one_one":
            return [0.5] * channels, [0.5] * channels
        # A channel that never changes has no std to divide by; one gray level is the least that an image can differ.
        return self.mean.tolist(), self.std.clamp_min(1 / 255).tolist()

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Statistics:
        """What `to_plain` gave."""
        return cls(torch.tensor(plain["mean"]), torch.tensor(plain["std"]), plain["pixels"])


def measure(
    store: PixelStore,
    records: Sequence[ImageRecord],
    *,
    cache: Cache,
    side: Literal["input", "target"] = "input",
    workers: int = 0,
) -> Statistics:
    """Mean and standard deviation per channel over every pixel of a store, which holds these records.

    8-bit pixels take 256 values, so they are counted: whole numbers neither round nor depend on order or workers.
    """
    name = f"statistics-{key_of([record.digest for record in records], store.channels, store.resize, side)}.json"
    kept = cache.read_json(name)
    if kept is None or kept.keys() != {"mean", "std", "pixels"}:
        get = store.__getitem__ if side == "input" else store.target
        histogram = np.zeros((store.channels, 256), dtype=np.int64)
        positions, title = range(len(store)), "Measuring mean and std"
        for counts in run_parallel(lambda n: _histogram(get(n)), positions, workers=workers, title=title):
            histogram += counts
        kept = _moments(histogram)
        cache.write_json(name, kept)
    return Statistics.from_plain(kept)


def _histogram(pixels: np.ndarray) -> np.ndarray:
    channels = pixels.shape[2]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.array(image.histogram(), dtype=np.int64).reshape(channels, 256)


def _moments(histogram: np.ndarray) -> dict[str, Any]:
    means, stds = [], []
    for counts in histogram.tolist():  # Python's whole numbers do not overflow
        pixels = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value * value * count for value, count in enumerate(counts))
        means.append(first / (255 * pixels))
        stds.append(math.sqrt(pixels * second - first * first) / (255 * pixels))
    return {"mean": means, "std": stds, "pixels": pixels}
