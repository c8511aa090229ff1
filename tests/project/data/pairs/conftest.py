"""Images of four unequal sides."""

import numpy as np
import pytest
import torch


@pytest.fixture
def images():
    """Makes a batch of 8-bit noise in [0, 1], each pixel another color: images(seed, count, channels, size)."""

    def make(seed: int = 0, count: int = 4, channels: int = 3, size: tuple[int, int] = (40, 56)) -> torch.Tensor:
        levels = np.random.default_rng(seed).integers(0, 256, (count, channels, *size))
        return torch.from_numpy(levels.astype(np.float32) / 255)

    return make
