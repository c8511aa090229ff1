"""Stand-ins for what the callbacks that show pictures look at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., SimpleNamespace]:
    """A trainer in the middle of a fit whose run's folder is the test's own: make_trainer(pairs=..., global_step=3)."""

    def make(pairs: object = None, **more: object) -> SimpleNamespace:
        plain = {
            "state": SimpleNamespace(fn="fit"),
            "global_step": 0,
            "is_global_zero": True,
            "log_dir": str(tmp_path),
            "loggers": [],
            "sanity_checking": False,
            "callback_metrics": {},
            "datamodule": None if pairs is None else SimpleNamespace(pairs=pairs),
            "precision_plugin": SimpleNamespace(test_step_context=nullcontext),
        }
        return SimpleNamespace(**{**plain, **more})

    return make
