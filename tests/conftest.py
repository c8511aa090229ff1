"""Shared by all tests: small images made here, and an environment that cannot reach out of the test's folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
INHERITED = ("WANDB_", "WORKBENCH_", "PL_", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_", "MPLCONFIGDIR")


@pytest.fixture(autouse=True)
def _stay_inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Runs, caches and W&B's files land in the test's folder; no credentials are found, no rank is inherited.

    What the code sets in the environment is undone after the test.
    """
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    for name in before:
        if name.startswith(INHERITED):
            del os.environ[name]
    os.environ["HOME"] = str(tmp_path)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), before.get("PYTHONPATH", "")])
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        os.environ[name] = str(tmp_path / "wandb")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of smooth, distinct images: make_images(10, width=40, height=33, folder="pictures", seed=0)."""

    def make(count: int = 10, width: int = 40, height: int = 33, folder: str = "pictures", seed: int = 0) -> Path:
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:height, :width] / 8
        for number in range(count):
            waves = [np.sin(x * (1 + number / 7) + c + seed) * np.cos(y * (1 + c / 3) + number) for c in range(3)]
            Image.fromarray(np.uint8(127.5 + 120 * np.stack(waves, axis=-1))).save(root / f"{number:03d}.png")
        return root

    return make
