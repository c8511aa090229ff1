from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.data.cache import Cache

SIZES = [(9, 7), (5, 18), (16, 6), (11, 4), (30, 20)]  # (width, height); unequal, so that a mean of means would differ


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str, list[np.ndarray], list[np.ndarray]]:
    """Two folders of images of the same names and sizes, lighter from one to the next, and the arrays in them."""
    arrays = []
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        random, own = np.random.default_rng(seed), []
        for number, (width, height) in enumerate(SIZES):
            array = random.normal((40 + 30 * number, 120, 200), (10, 40, 25), (height, width, 3)).clip(0, 255)
            own.append(array.astype(np.uint8))
            Image.fromarray(own[-1]).save(tmp_path / name / f"{number}.png")
        arrays.append(own)
    return str(tmp_path / "a"), str(tmp_path / "b"), *arrays
