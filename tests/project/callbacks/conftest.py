"""Stand-ins for what image callbacks look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule


class Function(LightningModule):
    """A function in place of a model, and what it was given."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function, self.seen = function, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.clone())
        return self.function(x)


@pytest.fixture
def make_model() -> type[Function]:
    """make_model(lambda x: x)."""
    return Function


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """A trainer in the middle of a fit whose run's folder is the test's own: make_trainer(pairs=..., global_step=3)."""

    def make(pairs: object = None, **more: object) -> SimpleNamespace:
        plain = {
            "state": SimpleNamespace(fn="fit"),
            "global_step": 0,
            "strategy": None,
            "is_global_zero": True,
            "log_dir": str(tmp_path),
            "loggers": [],
            "sanity_checking": False,
            "datamodule": SimpleNamespace(**({} if pairs is None else {"pairs": pairs})),
        }
        return SimpleNamespace(**{**plain, **more})

    return make
