"""Saving and stopping between two steps, so that a resumed run continues as if it had never stopped, bit by bit."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from workbench import lightning_private as private
from workbench.callbacks.checkpoints import Checkpoints
from workbench.checkpoint import one_line, other_version
from workbench.errors import UserError
from workbench.loggers import MetricsCSV
from workbench.signals import STOP, Stop

KEY = "exact_resume"


class ExactResume(Callback):
    """Save ``last.ckpt`` and stop between two steps, and fix Lightning's progress counters in what is saved.

    Callbacks are sorted by their attribute `order`, 0 if they have none. This one is first: before its
    `on_train_batch_start` nothing is half done, and no callback has logged for the new step. -1 is what has to see
    weights or gradients before others. Checkpoint callbacks stay last, as Lightning has it.
    """

    order = -2

    def __init__(self) -> None:
        self._wanted = 0  # 1: a checkpoint is due; a signal's number: the run has to stop. The same on all processes
        self._steps: int | None = None
        self._in_validation = self._validated = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # A new list: Lightning iterates over the old one.
        trainer.callbacks = sorted(trainer.callbacks, key=lambda callback: getattr(callback, "order", 0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        environment = private.cluster_environment(trainer)
        if getattr(environment, "auto_requeue", False):
            STOP.take_requeue(environment.requeue_signal)
        STOP.take()  # from Lightning, which has just taken them
        STOP.waits = True
        if trainer.global_rank > 0 or self._steps is not None:  # `Checkpoints` restores exact states, where it can
            reseed_per_rank(trainer.global_rank, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        checkpoints = _find_checkpoints(trainer)
        self._wanted = STOP.received or int(checkpoints is not None and checkpoints.is_due(trainer))
        if trainer.world_size > 1:
            wanted = torch.tensor(self._wanted, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(wanted, torch.distributed.ReduceOp.MAX)
            self._wanted = int(wanted)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Save and stop, if that was agreed on; then forget what earlier steps logged: else a GAN's log repeats the
        discriminator's values where it rests, and that of a resumed run does not."""
        self._validated = False
        if self._steps is not None:
            private.finish_restart(trainer, self._steps)
            self._steps = None
        wanted = self._wanted or (STOP.received if trainer.world_size == 1 else 0)
        if wanted and self._save(trainer):  # else after one of the next steps
            self._wanted = 0
            if wanted > 1:
                self._stop(trainer, wanted)
        private.clear_step_metrics(trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Do not wait for the end of a long validation: a resumed run starts it anew."""
        alone = trainer.world_size == 1  # other processes cannot be asked: they may have fewer batches
        training = trainer.state.fn == TrainerFn.FITTING and not (trainer.sanity_checking or trainer.should_stop)
        if STOP.received and alone and training and self._save(trainer):
            self._stop(trainer, STOP.received)

    def on_validation_end(self, *_: Any) -> None:
        self._validated = True  # from here on callbacks count this validation

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Outside of training a signal ends the program at once."""
        if trainer.state.fn != TrainerFn.FITTING:
            STOP.take()

    on_test_start = on_validation_start

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        STOP.waits = False

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        STOP.waits = False
        if self._steps is not None:  # the resumed run was over already
            private.finish_ended_run(trainer, self._steps)
            self._steps = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save at an error between two steps or in a validation; print from where the run can be resumed."""
        STOP.waits = False
        checkpoints = _find_checkpoints(trainer)
        if checkpoints is None or trainer.state.fn != TrainerFn.FITTING or not isinstance(exception, Exception):
            return
        counted = trainer.validating and self._validated
        exact = private.is_between_steps(trainer) and not counted and trainer.world_size == 1  # saving takes all ranks
        try:
            if exact and not checkpoints.is_saving:
                self._save(trainer)
        except Exception as error:  # such as a full disk; it must not hide the first one
            print(f"The last state could not be saved: {one_line(error)}", file=sys.stderr)
        if checkpoints.saved_step and trainer.is_global_zero:
            reason = "" if exact else "There is no exact state to save here: "
            print(f"{reason}--resume latest continues from step {checkpoints.saved_step}.", file=sys.stderr)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("loops") is None:
            return
        steps = private.fix_progress(checkpoint["loops"]["fit_loop"], trainer, self._in_validation)
        rows = [logger.write_down() for logger in trainer.loggers if isinstance(logger, MetricsCSV)]
        checkpoint[KEY] = {"steps": steps, "rows": rows[0] if rows and trainer.is_global_zero else None}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if KEY not in checkpoint and "loops" in checkpoint:  # one without loops has weights alone
            raise UserError(f"{trainer.ckpt_path} cannot be resumed. {other_version(trainer.ckpt_path)}")
        self._steps = checkpoint.get(KEY, {}).get("steps")

    def _save(self, trainer: Trainer) -> bool:
        """Save ``last.ckpt`` unless it is up to date; False if the last step has left something behind."""
        checkpoints = _find_checkpoints(trainer)
        if checkpoints is None or checkpoints.is_saved(trainer):
            return True
        done = private.batches_done(trainer)  # accumulated gradients are in no checkpoint
        if done % trainer.accumulate_grad_batches and done != trainer.num_training_batches:
            return False
        self._in_validation = trainer.validating
        checkpoints.save_last(trainer)
        self._in_validation = False
        return True

    def _stop(self, trainer: Trainer, number: int) -> None:
        STOP.waits = False
        STOP.received = STOP.received or number
        if STOP.requeue() and trainer.is_global_zero:
            for copy in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):  # Lightning's own, of the same step
                copy.unlink(missing_ok=True)
        raise Stop(number)


def _find_checkpoints(trainer: Trainer) -> Checkpoints | None:
    return next((found for found in trainer.checkpoint_callbacks if isinstance(found, Checkpoints)), None)


def reseed_per_rank(rank: int, step: int) -> None:
    """Seed all generators from the common seed, the rank and the step; Lightning seeds all ranks alike."""
    sequence = np.random.SeedSequence((torch.initial_seed(), rank, step))
    seed = int(sequence.generate_state(1, np.uint64)[0]) >> 1
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
