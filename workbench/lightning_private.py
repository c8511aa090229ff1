"""Every private name of Lightning that the two packages use, each in one small function with its reason.

tests/workbench/test_lightning_private.py fails first when a new version of Lightning changes one of them.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.core.mixins import hparams_mixin
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor


def steps_done(trainer: Trainer) -> int:
    """Batches after which an optimizer stepped: what loggers count by. `global_step` counts each optimizer's steps."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def batches_done(trainer: Trainer) -> int:
    """Training batches of the current epoch that are finished; right also after a resume in mid-epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.completed


def is_between_steps(trainer: Trainer) -> bool:
    """Whether neither a step nor the end of an epoch is in progress; a validation may be."""
    batch, epoch = trainer.fit_loop.epoch_loop.batch_progress.current, trainer.fit_loop.epoch_progress.current
    return batch.started == batch.completed and epoch.processed < epoch.ready


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the current batch ends without an optimizer step."""
    return trainer.fit_loop._should_accumulate()


def logs_now(trainer: Trainer) -> bool:
    """Whether Lightning writes to the loggers after this batch: reading values then adds no wait for the device."""
    return bool(trainer._logger_connector.should_update_logs)


def clear_step_metrics(trainer: Trainer) -> None:
    """Forget what earlier steps logged; else Lightning repeats it in each step that does not log it anew."""
    for metric in (trainer._results or {}).values():
        if metric.meta.on_step and not metric.meta.on_epoch:
            metric.has_reset = True


def was_updated(value: Any, known: Any) -> bool:
    """Whether a value of `trainer.callback_metrics` was logged after `known`, an earlier value of its name."""
    if isinstance(value, Tensor) and isinstance(known, Tensor):
        # Lightning makes a new tensor at each access, in the memory of the logged one, which `known` keeps from reuse.
        return value.device != known.device or value.data_ptr() != known.data_ptr()
    return value is not known


def cluster_environment(trainer: Trainer) -> ClusterEnvironment:
    """Who started the processes: Lightning, torchrun, SLURM, ..."""
    return trainer._accelerator_connector.cluster_environment


def ddp_options(strategy: DDPStrategy) -> dict[str, Any]:
    """The options for DistributedDataParallel; may be changed until the model is wrapped."""
    return strategy._ddp_kwargs


def wandb_options(logger: WandbLogger) -> dict[str, Any]:
    """What the logger passes to `wandb.init`; may be changed until the first value is logged."""
    return logger._wandb_init


def given_hyperparameters() -> dict[str, Any] | None:
    """The arguments that the command line records for `save_hyperparameters`; None outside of the command line."""
    return hparams_mixin._given_hyperparameters.get()


def fix_progress(loops: dict[str, Any], trainer: Trainer, in_validation: bool) -> int:
    """Change the counters in a checkpoint's fit loop, in place, so that a resumed run does exactly what was due next.

    Else Lightning skips a step, counts an epoch twice or leaves out a validation. One that was interrupted,
    `in_validation`, starts anew. Returns `steps_done` once all that belongs to the last batch is finished.
    """
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    now = batches["current"]
    unfinished = now["processed"] > now["completed"]  # saved in an on_train_batch_end, as Lightning expects
    if not unfinished:
        for counts in (batches["total"], now):
            counts.update(ready=counts["completed"], started=counts["completed"], processed=counts["completed"])
    if in_validation:
        validated = loops["epoch_loop.val_loop.batch_progress"]
        validated["total"].update(ready=1, started=1, processed=0, completed=0)
        validated["current"].update(ready=0, started=0, processed=0, completed=0)
        validated["is_last_batch"] = False
    over = epochs["current"]["completed"] == epochs["current"]["ready"] > 0
    if over and trainer.state.stage == RunningStage.TRAINING and now["completed"]:
        if batches["is_last_batch"]:
            now.update(ready=0, started=0, processed=0, completed=0)
            batches["is_last_batch"] = False
        else:  # the end of the run cut the epoch short; a longer run continues in it
            for counts in (epochs["total"], epochs["current"]):
                counts.update(processed=counts["processed"] - 1, completed=counts["completed"] - 1)
    steps = loops["epoch_loop.state_dict"]["_batches_that_stepped"]
    validating = trainer.state.stage == RunningStage.VALIDATING  # the batch before it is counted afterwards
    return steps + int((validating or unfinished) and not is_accumulating(trainer))


def finish_restart(trainer: Trainer, steps: int) -> None:
    """In the first step of a resumed run: set `steps_done`, which is off by one after some of Lightning's restarts."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = steps
    trainer.fit_loop._restarting = False  # else this epoch ends without a step of ReduceLROnPlateau


def finish_ended_run(trainer: Trainer, steps: int) -> None:
    """The same where the resumed run was over already, whose last epoch is complete then."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = steps
    progress = trainer.fit_loop.epoch_progress
    if progress.current.processed < progress.current.ready:
        progress.increment_processed()
        progress.increment_completed()
