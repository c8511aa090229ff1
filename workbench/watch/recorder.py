"""What the monitors measure: kept on the device, fetched all at once, and told to loggers, files and rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from workbench.findings import Facts, History
from workbench.lightning_private import steps_done
from workbench.watch.files import RunFiles
from workbench.watch.state import pack, unpack, unpack_facts


class Recorder:
    """The measurements of one run.

    A monitor puts tensors in without waiting for the device; ``flush`` fetches them together, in one transfer.

    Attributes:
        history: What was fetched so far.
        files: Of the run's folder.
        was_updated: Whether it waits to be opened.
    """

    def __init__(self, model: LightningModule) -> None:
        self.model = ref(model)
        self.history = History()
        self.files = RunFiles()
        self.was_updated = True
        self._pending: list[tuple[str | None, Sequence[str], int, Tensor, bool]] = []
        self._unlogged: dict[str, float] = {}
        self._loaded: dict[str, Any] | None = None

    def open(self, trainer: Trainer, facts: Facts) -> None:
        """Be ready for training; of a resumed run, go on where it was. Takes all processes, once.

        Args:
            trainer: The running trainer.
            facts: What is known of the model.
        """
        self.was_updated = False
        self.history.facts = facts
        if self._loaded is not None:
            unpack_facts(self.history, self._loaded["history"])
            self._loaded = None
        self.files.open(trainer)

    def put(self, names: Sequence[str], values: Tensor, step: int, table: str | None = None, log: bool = False) -> None:
        """Keep values for later.

        Args:
            names: One for each value: of scalars, or of a table's rows.
            values: (len(names),) or a scalar for a single name, on any device.
            step: Optimizer steps done before the one that is measured.
            table: Name of the table; None: scalars.
            log: Send them to the loggers as well when they are fetched.
        """
        self._pending.append((table, names, step, values.detach().reshape(-1), log))

    def flush(self, trainer: Trainer | None = None) -> None:
        """Fetch everything, add it to the history, and log what is to be logged: the newest value of each name.

        Args:
            trainer: Whose loggers to tell; None: log nothing yet.
        """
        pending, self._pending = self._pending, []
        fetched = _fetch([p[3] for p in pending])
        for (table, names, step, _, log), values in zip(pending, fetched, strict=True):
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
                    self._unlogged[name if table is None else f"{table}/{name}"] = value
        if trainer is not None:
            newest, self._unlogged = self._unlogged, {}
            log_values(trainer, newest)

    def state_dict(self) -> dict[str, Any]:
        """Everything measured so far; nothing is logged by it, so that a run does not show where it was saved."""
        self.flush()
        return {"history": pack(self.history), "unlogged": dict(self._unlogged), "lines": dict(self.files.lines)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what an earlier part of the run has measured; all monitors share it, so the first one loads it."""
        if self._loaded is None:
            self._loaded = state
            unpack(self.history, state["history"])
            self._unlogged, self.files.lines = dict(state["unlogged"]), dict(state["lines"])


def _fetch(tensors: list[Tensor]) -> list[list[float]]:
    """All values of tensors, with one transfer from each device."""
    devices: dict[torch.device, list[int]] = {}
    for position, tensor in enumerate(tensors):
        devices.setdefault(tensor.device, []).append(position)
    found: list[list[float]] = [[] for _ in tensors]
    for positions in devices.values():
        values, at = torch.cat([tensors[p].float() for p in positions]).tolist(), 0
        for p in positions:
            found[p] = values[at : at + tensors[p].numel()]
            at += tensors[p].numel()
    return found


_RECORDERS: WeakKeyDictionary[Trainer, Recorder] = WeakKeyDictionary()


def recorder_of(trainer: Trainer, model: LightningModule) -> Recorder:
    """The one recorder that all monitors of a run share."""
    recorder = _RECORDERS.get(trainer)
    if recorder is None or recorder.model() is not model:
        recorder = _RECORDERS[trainer] = Recorder(model)
    return recorder


def log_values(trainer: Trainer, values: dict[str, Any]) -> None:
    """Send values to all loggers, at the step that the loss is logged at."""
    if not values or not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        logger.log_metrics(values, step=steps_done(trainer))
