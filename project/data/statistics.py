"""Mean and standard deviation of each channel, exact, without holding more than a few images at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.data.cache import Cache, key_of
from project.data.images import ImageRecord
from project.data.parallel import run_parallel
from project.data.pixels import PixelStore


@dataclass
class Statistics:
    """Of the pixels in [0, 1].

    Attributes:
        mean: float32, (C,).
        std: float32, (C,): of the population (divided by the number of pixels), 0 for a constant channel.
        pixels: How many pixels of each channel went in.
    """

    mean: Tensor
    std: Tensor
    pixels: int


def measure(
    store: PixelStore,
    pictures: Sequence[ImageRecord],
    *,
    cache: Cache,
    side: Literal["input", "target"] = "input",
    limit: int | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Statistics:
    """Mean and standard deviation per channel over every pixel of the images, as they are loaded.

    8-bit pixels take 256 values, so each image is summed up by counting them; counts are whole numbers, so the result
    neither rounds nor depends on the order of the images or the number of workers.

    Args:
        store: The pixels of the training split.
        images: The same images; the cached result is known by their contents.
        cache: Where the result is kept.
        side: The images themselves, or their partners.
        limit: At most so many images, evenly spread over the split's order; None takes all.
        workers: Threads.
        progress: Whether a bar may be shown.
    """
    positions = spread(len(store), limit)
    digests = [pictures[position].digest for position in positions]
    name = f"statistics-{key_of(digests, store.channels, store.resize, side)}.json"
    kept = cache.read_json(name)
    if kept is None or kept.keys() != {"mean", "std", "pixels"}:
        histogram = np.zeros((store.channels, 256), dtype=np.int64)
        get = store.__getitem__ if side == "input" else store.target
        counts = run_parallel(
            lambda position: _histogram(get(position)),
            positions,
            workers=workers,
            what="Measuring mean and std",
            progress=progress,
        )
        for count in counts:
            histogram += count
        kept = _moments(histogram)
        cache.write_json(name, kept)
    return Statistics(torch.tensor(kept["mean"]), torch.tensor(kept["std"]), kept["pixels"])


def spread(total: int, limit: int | None) -> list[int]:
    """At most `limit` of the positions 0 to total - 1, evenly spaced, each once."""
    if limit is None or limit >= total:
        return list(range(total))
    return [(2 * number + 1) * total // (2 * limit) for number in range(limit)]


def _histogram(pixels: np.ndarray) -> np.ndarray:
    channels = pixels.shape[2]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.array(image.histogram(), dtype=np.int64).reshape(channels, 256)


def _moments(histogram: np.ndarray) -> dict:
    means, stds = [], []
    for counts in histogram.tolist():  # Python's whole numbers do not overflow
        pixels = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value * value * count for value, count in enumerate(counts))
        means.append(first / (255 * pixels))
        stds.append(math.sqrt(pixels * second - first * first) / (255 * pixels))
    return {"mean": means, "std": stds, "pixels": pixels}
