"""A monitor that looks at the probe: early in the run now and then, later at every validation."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from workbench.watch.monitor import Monitor
from workbench.watch.probe import EARLY, KEY, Probe, probe_of
from workbench.watch.recorder import steps_done
from workbench.watch.taps import Seen


class ProbeMonitor(Monitor):
    """What all monitors share that look at the probe; the pass itself is made once for all of them.

    Args:
        key: Its key on the command line, for messages.
        every_n_validations: Look at every n-th validation; 0 switches it off.
    """

    def __init__(self, key: str, every_n_validations: int) -> None:
        super().__init__(key, every_n_validations)
        self._validations = 0
        self.probe: Probe | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.probe = None
        if self.recorder is not None:
            self.probe = probe_of(trainer, pl_module)
            self.probe.readers.append(self)
            self.probe.move(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the first images; before the first validation look early and often, since most faults show there."""
        if self.probe is None:
            return
        self.probe.take_training(batch)
        if steps_done(trainer) in EARLY and not self.probe.settled:
            self.probe.look(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the images of the first validation."""
        if self.probe is not None and self.probe.readers[0] is self and not trainer.sanity_checking:
            self.probe.collect(batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the inside."""
        if self.probe is None or trainer.sanity_checking:
            return
        self._validations += 1
        self.probe.settle()
        if (self._validations - 1) % self.every_n_steps == 0:
            self.probe.look(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep which images the probe began with."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self.probe is not None and trainer.is_global_zero and KEY not in checkpoint:
            checkpoint[KEY] = self.probe.state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with them."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if trainer.state.fn == TrainerFn.FITTING and self.every_n_steps and KEY in checkpoint:
            probe_of(trainer, pl_module).load_state_dict(checkpoint[KEY])

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the run."""
        if self.probe is not None and self in self.probe.readers:
            self.probe.readers.remove(self)
        self.probe = None
        super().teardown(trainer, pl_module, stage)

    def hear(self, seen: Seen) -> None:
        """A non-linearity at work."""

    def finish(self, trainer: Trainer, model: LightningModule, probe: Probe, output: Tensor) -> None:
        """The pass is over."""


def reduce(trainer: Trainer, values: Tensor, how: str) -> Tensor:
    """Over all processes: max or mean; every process has to call it."""
    return trainer.strategy.reduce(values.clone(), reduce_op=how) if trainer.world_size > 1 else values


def cut(values: Tensor, lengths: list[int]) -> list[Tensor]:
    """A vector, taken apart into parts of those lengths."""
    return list(torch.split(values, lengths))
