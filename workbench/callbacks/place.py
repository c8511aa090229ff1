"""Where a run stands: checkpoints between two steps, from which a resumed run goes on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage, TrainerFn

from workbench.callbacks.checkpoints import LastCheckpoint
from workbench.loggers import MetricsCSV
from workbench.signals import STOP, Stop

KEY = "place"


class ExactResume(Callback):
    """Saves and stops between two steps, and puts Lightning's counters right in what is saved.

    Must come first of all callbacks: between its ``on_train_batch_start`` and the step before nothing is half done.
    """

    def __init__(self) -> None:
        self._wanted = 0  # 1: a checkpoint is due; a signal's number: the run has to stop. The same on all processes
        self._steps: int | None = None
        self._in_validation = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over from Lightning, which has just taken them."""
        self._take_signals(trainer)
        STOP.waits = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Agree with the other processes on what is to be done before the next step."""
        last = _last_checkpoint(trainer)
        self._wanted = STOP.received or int(last is not None and last.due(trainer))
        if trainer.world_size > 1:
            wanted = torch.tensor(self._wanted, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(wanted, torch.distributed.ReduceOp.MAX)
            self._wanted = int(wanted)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Save and stop, if that was agreed on."""
        if self._steps is not None:
            trainer.fit_loop.epoch_loop._batches_that_stepped = self._steps
            trainer.fit_loop._restarting = False  # else this epoch ends without a step of ReduceLROnPlateau
            self._steps = None
        wanted = self._wanted or (STOP.received if trainer.world_size == 1 else 0)
        if not wanted:
            return
        last = _last_checkpoint(trainer)
        if last is not None and not last.is_saved(trainer):
            if not _is_clean(trainer):
                return  # after one of the next steps
            last.save(trainer)
        self._wanted = 0
        if wanted > 1:
            self._stop(trainer, wanted)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Do not wait for the end of a long validation: a resumed run starts it anew."""
        if (
            not STOP.received
            or trainer.world_size > 1  # the others cannot be asked: they may have fewer batches
            or trainer.state.fn != TrainerFn.FITTING
            or trainer.sanity_checking
            or trainer.should_stop
        ):
            return
        last = _last_checkpoint(trainer)
        if last is not None and not last.is_saved(trainer):
            if not _is_clean(trainer):
                return
            self._in_validation = True
            last.save(trainer)
        self._stop(trainer, STOP.received)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Outside of training a signal ends the program at once."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._take_signals(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Outside of training a signal ends the program at once."""
        self._take_signals(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is nothing to wait for."""
        STOP.waits = False

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count to the end where a run was resumed that was over already."""
        STOP.waits = False
        if self._steps is None:
            return
        trainer.fit_loop.epoch_loop._batches_that_stepped = self._steps
        self._steps = None
        progress = trainer.fit_loop.epoch_progress
        if progress.current.processed < progress.current.ready:
            progress.increment_processed()
            progress.increment_completed()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save when an error comes between two steps, as from a file that cannot be read."""
        STOP.waits = False
        last = _last_checkpoint(trainer)
        agreed = trainer.world_size == 1 or self._wanted > 1  # saving takes all processes
        if last is None or not last.on_error or isinstance(exception, Stop) or not agreed:
            return
        if trainer.state.fn == TrainerFn.FITTING and _is_between(trainer) and _is_clean(trainer):
            self._in_validation = trainer.state.stage == RunningStage.VALIDATING
            last.save_on_error(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the place, and what is in ``metrics.csv`` by now."""
        if checkpoint.get("loops") is None:
            return
        steps = put_right(checkpoint["loops"]["fit_loop"], trainer, self._in_validation)
        self._in_validation = False
        rows = [logger.write_down() for logger in trainer.loggers if isinstance(logger, MetricsCSV)]
        checkpoint[KEY] = {"steps": steps, "rows": rows[0] if rows and trainer.is_global_zero else None}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the number of steps: Lightning counts one too many or too few on some of its ways to resume."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._steps = checkpoint.get(KEY, {}).get("steps")

    def _take_signals(self, trainer: Trainer) -> None:
        environment = trainer._accelerator_connector.cluster_environment
        if trainer.state.fn == TrainerFn.FITTING and getattr(environment, "auto_requeue", False):
            STOP.take_requeue(environment.requeue_signal)
        STOP.take()

    def _stop(self, trainer: Trainer, number: int) -> None:
        STOP.waits = False
        STOP.received = STOP.received or number
        if STOP.requeue() and trainer.is_global_zero:
            # Lightning saves a checkpoint of its own for that, the same as the last one: one is enough.
            for copy in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
                copy.unlink(missing_ok=True)
        raise Stop(number)


def put_right(loops: dict[str, Any], trainer: Trainer, in_validation: bool) -> int:
    """Change Lightning's counters so that a resumed run does what was due next, neither more nor less.

    Lightning's restart logic knows checkpoints that are made at the end of a step or of a validation. Of those made
    between two steps, or at the end of a run, it would skip a step, count an epoch twice or leave a validation out.

    Args:
        loops: State of the fit loop, as it goes into the checkpoint; changed in place.
        trainer: The running trainer.
        in_validation: Whether a validation has been broken off, which is then started anew.

    Returns:
        The number of steps that loggers go by, when everything is done that belongs to the last batch.
    """
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    now = batches["current"]
    unfinished = now["processed"] > now["completed"]  # saved by somebody's on_train_batch_end: Lightning's own way
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
        else:  # the run's end has cut the epoch short; a longer run goes on in it
            for counts in (epochs["total"], epochs["current"]):
                counts.update(processed=counts["processed"] - 1, completed=counts["completed"] - 1)
    steps = loops["epoch_loop.state_dict"]["_batches_that_stepped"]
    validating = trainer.state.stage == RunningStage.VALIDATING  # the batch before it is counted afterwards
    return steps + int((validating or unfinished) and not trainer.fit_loop._should_accumulate())


def _last_checkpoint(trainer: Trainer) -> LastCheckpoint | None:
    return next((found for found in trainer.checkpoint_callbacks if isinstance(found, LastCheckpoint)), None)


def _is_between(trainer: Trainer) -> bool:
    """Whether no batch is being worked on, and the epoch's end neither."""
    batch, epoch = trainer.fit_loop.epoch_loop.batch_progress.current, trainer.fit_loop.epoch_progress.current
    return batch.ready == batch.completed and epoch.processed < epoch.ready


def _is_clean(trainer: Trainer) -> bool:
    """Whether the last step of this epoch has left nothing behind, as accumulated gradients would be."""
    done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    return done > 0 and (done % trainer.accumulate_grad_batches == 0 or done == trainer.num_training_batches)
