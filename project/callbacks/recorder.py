"""What the monitors measure: kept on the device, fetched all at once, and told to loggers and rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from project.callbacks.facts import gather
from project.diagnosis import History
from project.errors import UserError

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
DENSE = 10
"""The first steps are all measured: a run that goes wrong at once is over before the second measurement of others."""


class Recorder:
    """The measurements of one run.

    A monitor puts tensors in without waiting for the device; ``flush`` fetches them together, in one transfer.
    """

    def __init__(self, model: LightningModule) -> None:
        self.model = ref(model)
        self.history = History()
        self._pending: list[tuple[str | None, Sequence[str], int, Tensor, bool]] = []

    def put(self, names: Sequence[str], values: Tensor, step: int, table: str | None = None, log: bool = False) -> None:
        """Keep values for later.

        Args:
            names: One for each value: of scalars, or of a table's rows.
            values: (len(names),) or a scalar for a single name, on any device.
            step: Optimiser steps done before the one that is measured.
            table: Name of the table; None: scalars.
            log: Send them to the loggers as well when they are fetched.
        """
        self._pending.append((table, names, step, values.detach().reshape(-1), log))

    def flush(self, trainer: Trainer | None = None) -> None:
        """Fetch everything, add it to the history, and log what is to be logged: the newest value of each name.

        Args:
            trainer: Whose loggers to tell; None: log nothing.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        newest: dict[str, float] = {}
        for (table, names, step, _, log), values in zip(pending, _fetch([p[3] for p in pending]), strict=True):
            if table == "gradient" and self.history.nonfinite_gradient is None:
                # A backward pass comes from the last layer: there it went wrong first.
                bad = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
                self.history.nonfinite_gradient = (step, bad[-1]) if bad else None
            for name, value in zip(names, values, strict=True):
                if table is None:
                    self.history.add(name, step, value)
                else:
                    self.history.add_row(table, name, step, value)
                if log:
                    newest[name if table is None else f"{table}/{name}"] = value
        if trainer is not None:
            log_values(trainer, newest)


def _fetch(tensors: list[Tensor]) -> list[list[float]]:
    """All values of tensors, with one transfer from each device."""
    devices: dict[torch.device, list[int]] = {}
    for position, tensor in enumerate(tensors):
        devices.setdefault(tensor.device, []).append(position)
    found: list[list[float]] = [[] for _ in tensors]
    for positions in devices.values():
        values = torch.cat([tensors[p].float() for p in positions]).tolist()
        for p in positions:
            found[p], values = values[: tensors[p].numel()], values[tensors[p].numel() :]
    return found


_RECORDERS: WeakKeyDictionary[Trainer, Recorder] = WeakKeyDictionary()


def recorder_of(trainer: Trainer, model: LightningModule) -> Recorder:
    """The one recorder that all monitors of a run share."""
    recorder = _RECORDERS.get(trainer)
    if recorder is None or recorder.model() is not model:
        recorder = _RECORDERS[trainer] = Recorder(model)
    return recorder


def steps_done(trainer: Trainer) -> int:
    """Optimiser steps so far, one a batch also where several optimisers step in it: what loggers count by."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def logs_now(trainer: Trainer) -> bool:
    """Whether Lightning fetches values for the loggers after this batch: fetching more costs no further wait."""
    return bool(trainer._logger_connector.should_update_logs)


def log_values(trainer: Trainer, values: dict[str, Any]) -> None:
    """Send values to all loggers, at the step that the loss is logged at."""
    if not values or not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        logger.log_metrics(values, step=steps_done(trainer))


class Monitor(Callback):
    """Measures something every few steps.

    Args:
        key: Its key on the command line, for messages.
        every_n_steps: Measure at every n-th step, and at each of the first ten; 0 switches it off.

    Raises:
        UserError: When ``every_n_steps`` is negative.
    """

    def __init__(self, key: str, every_n_steps: int) -> None:
        if every_n_steps < 0:
            raise UserError(f"{key}.every_n_steps must be at least 1, or 0 for never; it is {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self.recorder: Recorder | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the other monitors."""
        self.recorder = None
        if self.every_n_steps == 0 or isinstance(trainer.strategy, SHARDED):
            return  # a process that holds a part of each tensor cannot measure the whole
        self.recorder = recorder_of(trainer, pl_module)
        if not self.recorder.history.facts.parameters:
            self.recorder.history.facts = gather(trainer, pl_module)

    def due(self, trainer: Trainer) -> bool:
        """Whether this step is to be measured; only the first process measures what is the same in all."""
        if self.recorder is None or not trainer.is_global_zero:
            return False
        step = steps_done(trainer)
        return step < DENSE or step % self.every_n_steps == 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fetch what was measured when the loggers fetch anyway."""
        if self.recorder is not None and logs_now(trainer):
            self.recorder.flush(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the run."""
        self.recorder = None
