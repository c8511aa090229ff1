"""Shared by all tests: small images made here, and an environment that cannot reach out of the test's folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _stay_inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs, caches and W&B's files land in the test's folder; no credentials are found, no rank is inherited."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    for name in list(os.environ):
        if name.startswith(("WANDB_", "WORKBENCH_")) or name in (
            "LOCAL_RANK",
            "NODE_RANK",
            "WORLD_SIZE",
            "PL_GLOBAL_SEED",
        ):
            monkeypatch.delenv(name)
    # What the code itself sets in the environment goes as well: the values of before come back after the test.
    for name in (
        "WORKBENCH_RUN_VERSION",
        "WANDB_MODE",
        "WANDB_SILENT",
        "WANDB_CONSOLE",
        "MPLCONFIGDIR",
        "PL_GLOBAL_SEED",
        "PL_SEED_WORKERS",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of smooth, distinct images: make_images(count=10, width=40, height=33, folder="images")."""

    def make(count: int = 10, width: int = 40, height: int = 33, folder: str = "pictures") -> Path:
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:height, :width] / 8
        for number in range(count):
            waves = [np.sin(x * (1 + number / 7) + c) * np.cos(y * (1 + c / 3) + number) for c in range(3)]
            Image.fromarray(np.uint8(127.5 + 120 * np.stack(waves, axis=-1))).save(root / f"{number:03d}.png")
        return root

    return make
