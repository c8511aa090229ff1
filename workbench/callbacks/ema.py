"""An exponential moving average of the weights: steadier images than those of the last step, nearly for free."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import Parameter

from workbench.errors import UserError
from workbench.sharding import is_sharded


class EMA(Callback):
    """Average the weights over the last steps; validate, test, predict and save with the average.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, so that a short run forgets its random start.
    Buffers are not averaged: BatchNorm's running statistics are averages already, and the data's statistics constants.
    Of a model with an attribute ``averaged``, a tuple of prefixes, only parameters whose names start with one of them
    are averaged: of a GAN the generator, since the discriminator plays against what the generator is now.
    In a checkpoint ``state_dict`` holds the average, and ``current_model_state`` what a resumed run trains on.

    Lightning's own ``EMAWeightAveraging`` copies the module before it has its statistics and its device, averages
    buffers, and has no warm-up of the decay.

    Args:
        decay: Share of the average that stays at each update: 0.999 averages over some 1000 updates; 0 switches it off.
        every_n_steps: Optimizer steps between two updates.

    Raises:
        UserError: When ``decay`` is not in [0, 1) or ``every_n_steps`` is below 1.
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"EMA: decay must be in [0, 1), 0 for none, not {decay}.")
        if every_n_steps < 1:
            raise UserError(f"EMA: every_n_steps must be at least 1, not {every_n_steps}.")
        self.decay = decay
        self.every_n_steps = every_n_steps
        self.updates = 0
        self._average: dict[str, Tensor] = {}
        self._loaded: dict[str, Tensor] = {}
        self._parameters: dict[str, Parameter] = {}
        self._swapped = False
        self._latest_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the weights as they are by now: initialized or loaded, on their device.

        Raises:
            UserError: Each process holds only a part of the weights.
        """
        self._latest_step = trainer.global_step
        if self.decay == 0:
            return
        if is_sharded(trainer):
            raise UserError(
                f"The average of weights needs all of them, and {type(trainer.strategy).__name__} gives each process a "
                "part.\nSwitch it off: --ema.decay 0"
            )
        if not self._loaded:
            self.updates = 0
        prefixes = tuple(getattr(pl_module, "averaged", ("",)))
        self._parameters = {
            name: parameter
            for name, parameter in pl_module.named_parameters()
            if parameter.is_floating_point() and name.startswith(prefixes)
        }
        self._average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        for name, average in self._average.items():
            average.copy_(self._loaded.get(name, average))
        self._loaded = {}
        self._swapped = False

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Move the average towards the weights, after every optimizer step that counts."""
        step = trainer.global_step
        # Manual optimization may count several steps a batch, so a multiple can be jumped over.
        due = step // self.every_n_steps > self._latest_step // self.every_n_steps
        self._latest_step = step
        if not self._average or not due:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module."""
        if self._average and not self._swapped:
            self._swap()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights back."""
        if self._swapped:
            self._swap()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        if self._average and not self._swapped:
            self._swap()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the run: the module holds its average, and validating it again must not swap."""
        self._average, self._parameters, self._swapped = {}, {}, False

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(kept)
        self._swapped = not self._swapped

    def state_dict(self) -> dict[str, Any]:
        """How far the warm-up of the decay is."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the warm-up of the decay."""
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The average goes into ``state_dict``, the weights under training into ``current_model_state``."""
        if not self._average:
            return
        other = {**checkpoint["state_dict"], **self._average}
        current, average = (other, checkpoint["state_dict"]) if self._swapped else (checkpoint["state_dict"], other)
        checkpoint["current_model_state"] = current
        checkpoint["state_dict"] = average

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """On resuming: the average from ``state_dict``, the module's weights from ``current_model_state``."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if self.decay > 0:
            self._loaded = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        if "current_model_state" in checkpoint:
            pl_module.load_state_dict(checkpoint["current_model_state"])
