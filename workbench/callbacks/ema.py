"""An exponential moving average of the weights: smoother outputs than those of the last step."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import Parameter

from workbench.distributed import is_sharded
from workbench.errors import UserError


class EMA(Callback):
    """Average the weights after each optimizer step; validate, test and save with the average.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, so that a short run forgets its random start.
    Averaged are parameters alone (Lightning's EMAWeightAveraging averages buffers too), of a module with a tuple
    `averaged` those whose names start with a prefix in it. In a checkpoint `state_dict` holds the average, and
    `current_model_state` the weights that a resumed run trains on.

    Args:
        decay: Share of the average that is kept at each step, below 1: 0.999 averages over about 1,000; 0: off.
    """

    order = -1  # after a validation the weights are back before Watch, behind it, measures them; see ExactResume

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"ema.decay is {decay}: it must be in [0, 1); 0 switches it off.")
        self.decay, self.enabled = decay, decay > 0
        self.updates, self._latest_step = 0, 0
        self._loaded: dict[str, Tensor] = {}
        self._average: dict[str, Tensor] = {}
        self._parameters: dict[str, Parameter] = {}
        self._swapped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled:
            return
        if is_sharded(trainer):
            raise UserError(
                f"ema needs all weights, and {type(trainer.strategy).__name__} gives each process a part.\n"
                "Switch it off: --ema.decay 0"
            )
        self.updates = self.updates if self._loaded else 0
        self._latest_step, self._swapped = trainer.global_step, False
        prefixes = tuple(getattr(pl_module, "averaged", ("",)))
        self._parameters = {
            name: parameter
            for name, parameter in pl_module.named_parameters()
            if parameter.is_floating_point() and name.startswith(prefixes)
        }
        start = {**self._parameters, **self._loaded}
        self._average = {name: start[name].detach().to(p, copy=True) for name, p in self._parameters.items()}
        self._loaded = {}

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        stepped, self._latest_step = trainer.global_step > self._latest_step, trainer.global_step
        if not self._average or not stepped:  # a batch may only accumulate gradients
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1 - decay)

    @torch.no_grad()
    def _swap(self) -> None:
        self._swapped = not self._swapped
        for name, parameter in self._parameters.items():
            other = parameter.clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(other)

    def on_validation_start(self, *_: Any) -> None:
        if not self._swapped:
            self._swap()

    on_train_end = on_validation_start  # the module keeps the average

    def on_validation_end(self, *_: Any) -> None:
        if self._swapped:
            self._swap()

    def teardown(self, *_: Any, stage: str) -> None:
        self._average, self._parameters, self._swapped = {}, {}, False  # validating later must not swap

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average:
            current, average = checkpoint["state_dict"], {**checkpoint["state_dict"], **self._average}
            if self._swapped:
                current, average = average, current
            checkpoint |= {"current_model_state": current, "state_dict": average}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if self.enabled:
            self._loaded = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
        if "current_model_state" in checkpoint:
            pl_module.load_state_dict(checkpoint["current_model_state"])
