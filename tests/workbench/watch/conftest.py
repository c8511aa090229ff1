"""A run that is watched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger

from tests.workbench.toys import loader, quiet_trainer
from workbench.findings import History
from workbench.watch import Watch


class Keep(L.Callback):
    """What a run forgets at its end: its measurements and the samples of the probe."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.history = History() if self.watch.recorder is None else self.watch.recorder.history
        self.batch = None if self.watch.recorder is None else self.watch.probe.batch


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., History]:
    """Train on the CPU while watched, with these arguments of Watch and options of the trainer; returns what was
    measured. Afterwards there are ``fit.watch``, ``fit.trainer``, ``fit.batch`` (the probe's samples), ``fit.folder``.
    """

    def run(model: L.LightningModule, callbacks: tuple[Any, ...] = (), data: Any = None, **options: Any) -> History:
        of_watch = {k: options.pop(k) for k in ("every_n_steps", "every_n_validations", "on_fault") if k in options}
        watch = run.watch = Watch(**{"every_n_steps": 1, **of_watch})
        keep = Keep(watch)
        logger = CSVLogger(tmp_path, name="", version="run")
        options = {"logger": logger, "log_every_n_steps": 3, **options}
        run.trainer = quiet_trainer(watch, *callbacks, keep, **options)
        run.trainer.fit(model, *(data or (loader(0, 12), loader(100, 2, size=(30, 34)))))
        run.batch = keep.batch
        return keep.history

    run.folder = tmp_path / "run"
    return run
