"""The states of all random generators of a process: saved, restored, and different on each process."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def get_rng_state(device: torch.device) -> dict[str, Any]:
    """The states of the generators of Python, NumPy, torch and the device, as tensors and numbers."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 what others draw from
    states = {"python": random.getstate(), "numpy": (name, keys.tolist(), *rest), "torch": torch.get_rng_state()}
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state()
    return states


def set_rng_state(states: dict[str, Any], device: torch.device) -> None:
    """Restore what `get_rng_state` returned; a device of another kind keeps its state."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if device.type != "cpu" and "device" in states:
        torch.get_device_module(device).set_rng_state(states["device"].cpu())


def reseed_per_rank(rank: int, step: int) -> None:
    """Seed all generators from the common seed, the rank and the step: Lightning seeds all ranks alike, so that they
    would draw the same noise."""
    sequence = np.random.SeedSequence((torch.initial_seed(), rank, step))
    seed = int(sequence.generate_state(1, np.uint64)[0]) >> 1
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
