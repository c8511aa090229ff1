"""Images of four unequal sides."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Blind(TorchDispatchMode):
    """No code may read a value, nor make shapes depend on one: on a GPU the program would wait for it."""

    READS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in self.READS, f"{func} reads a value"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def blind():
    """A context in which `.item()`, `bool()`, `x[mask]` and the like fail."""
    return Blind()


@pytest.fixture
def images():
    """Makes a batch of 8-bit noise in [0, 1], each pixel another color: images(seed, count, channels, size)."""

    def make(
        seed: int = 0, count: int = 4, channels: int = 3, size: tuple[int, int] = (40, 56), device: str = "cpu"
    ) -> torch.Tensor:
        levels = np.random.default_rng(seed).integers(0, 256, (count, channels, *size))
        return torch.from_numpy(levels.astype(np.float32) / 255).to(device)

    return make
