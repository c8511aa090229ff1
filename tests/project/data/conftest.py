"""Shared by the tests of the data: a cache, and folders of seeded random images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.data.cache import Cache


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(scope="session")
def write_images():
    """write_images(folder, count, size=(height, width), seed=0): smooth random PNG images, each another."""

    def write(folder: Path, count: int, size: tuple[int, int] = (40, 52), seed: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            coarse = np.random.default_rng([seed, number]).integers(0, 256, (5, 7, 3), np.uint8)
            Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
        return folder

    return write
