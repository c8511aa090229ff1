"""Mean and standard deviation of each channel, exact, without holding more than a few images at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.data.cache import Cache, key_of
from project.data.images import run_parallel
from project.data.pixels import PixelStore


@dataclass
class Statistics:
    """Of pixels in [0, 1]: float32, (C,) each; the std is divided by the number of pixels, 0 for a constant channel."""

    mean: Tensor
    std: Tensor
    pixels: int

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Statistics:
        return cls(torch.tensor(plain["mean"]), torch.tensor(plain["std"]), plain["pixels"])

    def to_plain(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "pixels": self.pixels}

    def scale(self, input_range: str) -> tuple[list[float], list[float]]:
        """(mean, std) by which images are normalized, for `data.input_range`."""
        if input_range != "standardize":
            mean, std = {"zero_one": (0.0, 1.0), "minus_one_one": (0.5, 0.5)}[input_range]
            return [mean] * len(self.mean), [std] * len(self.mean)
        # A channel that never changes has no std to divide by; one gray level is the least that an image can differ.
        return self.mean.tolist(), self.std.clamp_min(1 / 255).tolist()


def measure(store: PixelStore, cache: Cache, side: str = "input") -> Statistics:
    """Mean and standard deviation per channel over every pixel of a store's images, or targets (side "target").

    8-bit pixels take 256 values, so they are counted: whole numbers neither round nor depend on the order.
    """
    digests = [record.digest for record in store.records]
    name = f"statistics-{key_of(digests, store.channels, store.resize, side)}.json"
    kept = cache.read_json(name)
    if kept is None:
        get = store.__getitem__ if side == "input" else store.target
        histogram = np.zeros((store.channels, 256), dtype=np.int64)
        for counts in run_parallel(lambda n: _histogram(get(n)), range(len(store)), "Measuring mean and std"):
            histogram += counts
        kept = _moments(histogram)
        cache.write_json(name, kept)
    return Statistics.from_plain(kept)


def _histogram(pixels: np.ndarray) -> np.ndarray:
    channels = pixels.shape[2]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.array(image.histogram(), dtype=np.int64).reshape(channels, 256)


def _moments(histogram: np.ndarray) -> dict[str, Any]:
    counts = histogram.astype(object)  # Python's whole numbers do not overflow
    pixels, first, second = ((counts * np.arange(256) ** power).sum(axis=1) for power in range(3))
    spread = np.sqrt((pixels * second - first * first).astype(float))
    return {"mean": list(first / (255 * pixels)), "std": list(spread / (255 * pixels)), "pixels": int(pixels[0])}
