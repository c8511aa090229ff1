# ruff: noqa: NPY002
from __future__ import annotations

import random

import numpy as np
import torch

from workbench.callbacks.checkpoints import get_rng_state, set_rng_state
from workbench.callbacks.resume import reseed_per_rank

CPU = torch.device("cpu")


def _draw() -> list[float]:
    numbers = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.standard_normal()]
    return [*map(float, numbers), float(torch.rand(())), float(torch.randn(()))]


def test_after_restoring_the_same_numbers_come(tmp_path):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    _draw()  # leaves half of a pair of normal numbers behind, in Python as in NumPy
    torch.save(get_rng_state(CPU), tmp_path / "states")
    expected = [_draw() for _ in range(3)]
    assert expected[0] != expected[1]
    set_rng_state(torch.load(tmp_path / "states", weights_only=True), CPU)
    assert [_draw() for _ in range(3)] == expected


def test_each_rank_has_numbers_of_its_own_that_follow_from_the_seed():
    drawn = {}
    for rank, step in ((1, 0), (2, 0), (1, 7), (1, 0)):
        torch.manual_seed(42)
        reseed_per_rank(rank, step)
        numbers = tuple(_draw())
        assert drawn.setdefault((rank, step), numbers) == numbers
    torch.manual_seed(42)
    assert len({*drawn.values(), tuple(_draw())}) == 4
