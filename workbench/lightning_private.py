"""Every private name of Lightning that the two packages use, each in one small function with its reason."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor


def steps_done(trainer: Trainer) -> int:
    """Batches after which an optimizer stepped: what loggers count by. `global_step` counts each optimizer's steps."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the current batch ends without an optimizer step."""
    return trainer.fit_loop._should_accumulate()


def logs_now(trainer: Trainer) -> bool:
    """Whether Lightning writes to the loggers after this batch: reading values then adds no wait for the device."""
    return bool(trainer._logger_connector.should_update_logs)


def was_updated(value: Any, known: Any) -> bool:
    """Whether a value of `trainer.callback_metrics` was logged after `known`, an earlier value of its name.

    Lightning makes a new tensor at each access, in the memory of the logged one, which `known` keeps from reuse.
    """
    if isinstance(value, Tensor) and isinstance(known, Tensor):
        return value is not known and (value.device != known.device or value.data_ptr() != known.data_ptr())
    return value is not known


def batches_done(trainer: Trainer) -> int:
    """Training batches of the current epoch that are finished; right also after a resume in mid-epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.completed
