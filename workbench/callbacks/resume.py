"""Saving and stopping between two steps, so that a resumed run continues as if it had never stopped, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from workbench import lightning_private as private
from workbench.callbacks.checkpoints import Checkpoints
from workbench.checkpoint import other_version
from workbench.errors import UserError
from workbench.loggers import MetricsCSV
from workbench.random_states import reseed_per_rank
from workbench.signals import STOP, Stop

KEY = "exact_resume"


class ExactResume(Callback):
    """Save ``last.ckpt`` and stop between two steps, and fix Lightning's progress counters in what is saved.

    `setup` sorts callbacks by their attribute `order`, 0 if they have none. This one is first: before its
    `on_train_batch_start` nothing is half done, and no callback has logged for the new step. -1 is what has to see
    weights or gradients before others. Checkpoint callbacks stay last, as Lightning has it.
    """

    order = -2

    def __init__(self) -> None:
        self._wanted = 0  # 1: a checkpoint is due; a signal's number: the run has to stop. The same on all processes
        self._steps: int | None = None
        self._in_validation = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # A new list: Lightning is iterating over the old one.
        trainer.callbacks = sorted(trainer.callbacks, key=lambda callback: getattr(callback, "order", 0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals from Lightning, which has just taken them."""
        environment = private.cluster_environment(trainer)
        if getattr(environment, "auto_requeue", False):
            STOP.take_requeue(environment.requeue_signal)
        STOP.take()
        STOP.waits = True
        if trainer.global_rank > 0 or self._steps is not None:  # `Checkpoints` restores exact states, where it can
            reseed_per_rank(trainer.global_rank, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Agree with the other processes on what to do before the next step."""
        checkpoints = _find_checkpoints(trainer)
        self._wanted = STOP.received or int(checkpoints is not None and checkpoints.is_due(trainer))
        if trainer.world_size > 1:
            wanted = torch.tensor(self._wanted, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(wanted, torch.distributed.ReduceOp.MAX)
            self._wanted = int(wanted)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Save and stop, if that was agreed on; then forget what earlier steps logged.

        Else the log of a GAN repeats the discriminator's values where it rests, and that of a resumed run does not.
        """
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
        if STOP.received and alone and training and self._save(trainer, in_validation=True):
            self._stop(trainer, STOP.received)

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

    def on_exception(self, *_: Any) -> None:
        STOP.waits = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the number of steps, and of rows in ``metrics.csv``."""
        if checkpoint.get("loops") is None:
            return
        steps = private.fix_progress(checkpoint["loops"]["fit_loop"], trainer, self._in_validation)
        self._in_validation = False
        rows = [logger.write_down() for logger in trainer.loggers if isinstance(logger, MetricsCSV)]
        checkpoint[KEY] = {"steps": steps, "rows": rows[0] if rows and trainer.is_global_zero else None}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if KEY not in checkpoint and "loops" in checkpoint:  # one without loops has weights alone
            raise UserError(f"{trainer.ckpt_path} cannot be resumed. {other_version(trainer.ckpt_path)}")
        self._steps = checkpoint.get(KEY, {}).get("steps")
        if "current_model_state" in checkpoint:  # of a run with EMA, which may be switched off by now
            pl_module.load_state_dict(checkpoint["current_model_state"])

    def _save(self, trainer: Trainer, in_validation: bool = False) -> bool:
        """Save ``last.ckpt`` unless it is up to date; False if the last step has left something behind."""
        checkpoints = _find_checkpoints(trainer)
        if checkpoints is None or checkpoints.is_saved(trainer):
            return True
        if not _is_clean(trainer):
            return False
        self._in_validation = in_validation
        checkpoints.save_last(trainer)
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


def _is_clean(trainer: Trainer) -> bool:
    """Whether the last step of this epoch has left nothing behind, as accumulated gradients would be."""
    done = private.batches_done(trainer)
    return done > 0 and (done % trainer.accumulate_grad_batches == 0 or done == trainer.num_training_batches)
