"""What the monitors measure: kept on the device, fetched all at once, and told to loggers and rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from project.diagnosis import History


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
