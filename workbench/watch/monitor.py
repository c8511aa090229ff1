"""What all monitors share: one recorder, and the steps at which they measure."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from workbench.errors import UserError
from workbench.lightning_private import logs_now
from workbench.sharding import is_sharded
from workbench.watch.facts import gather
from workbench.watch.recorder import Recorder, recorder_of, steps_done

KEY = "monitors"
"""Where a checkpoint holds what was measured."""
DENSE = 10
"""The first steps are all measured: a run that goes wrong at once is over before the second measurement of others."""


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
        if self.every_n_steps == 0 or is_sharded(trainer):
            return  # a process that holds a part of each tensor cannot measure the whole
        self.recorder = recorder_of(trainer, pl_module)
        if self.recorder.was_updated:
            self.recorder.open(trainer, gather(trainer, pl_module))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the measurements with the weights; the first of the monitors does it for all."""
        if self.recorder is not None and trainer.is_global_zero and KEY not in checkpoint:
            checkpoint[KEY] = self.recorder.state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with them: a resumed run finds what it would have found without a break."""
        if trainer.state.fn == TrainerFn.FITTING and self.every_n_steps and KEY in checkpoint:
            recorder_of(trainer, pl_module).load_state_dict(checkpoint[KEY])

    def due(self, trainer: Trainer) -> bool:
        """Whether this step is to be measured; only the first process measures what is the same in all."""
        if self.recorder is None or not trainer.is_global_zero:
            return False
        step = steps_done(trainer)  # counted from 1 it is a multiple at the steps that loggers take as well
        return step < DENSE or (step + 1) % self.every_n_steps == 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fetch what was measured when the loggers fetch anyway."""
        if self.recorder is not None and logs_now(trainer):
            self.recorder.flush(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the run."""
        self.recorder = None
