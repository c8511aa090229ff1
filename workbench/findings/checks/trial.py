"""Short trial runs of a copy of the model, by its own ``training_step`` and with nothing to hold it back."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader

from workbench.callbacks.clipping import GradientClipping

EVERY = 10  # steps between two measurements
SILENT = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


@dataclass(eq=False)
class Trial(Callback):
    """A short run that ends when the error is small enough or the time is up, and how it went."""

    error: Callable[[LightningModule], float] | None = None  # None: the loss that ``training_step`` returns
    enough: float = -math.inf  # the error at which it ends
    max_steps: int = 1
    seconds: float = 60.0
    rate: float | None = None  # of an Adam that replaces the model's optimizers; None keeps them, at their full rates
    data: Any = None  # the data module, which the model's setup may ask
    errors: list[float] = field(default_factory=list)  # at the start and every few steps
    steps: int = 0
    problem: str = ""  # the exception that ended it, if any did
    started: bool = False

    @property
    def first(self) -> float:
        return next(iter(self.errors), math.nan)

    @property
    def last(self) -> float:
        return next(reversed(self.errors), math.nan)

    @property
    def best(self) -> float:
        return min((error for error in self.errors if not math.isnan(error)), default=math.nan)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.datamodule = self.data  # it is set up, and its loaders are not used

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.datamodule = None  # or it would be torn down

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started, self.deadline = True, time.monotonic() + self.seconds
        self._measure(pl_module)
        # Full, constant rates and no weight decay, or Adam instead.
        stop_schedulers(trainer)
        for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
            group["lr"] = full_rate(group)
            group["weight_decay"] = 0.0
        if self.rate is not None:
            held = [[p for group in o.param_groups for p in group["params"]] for o in trainer.optimizers]
            trainer.strategy.optimizers = [Adam(parameters, lr=self.rate) for parameters in held]

    @torch.no_grad()
    def _measure(self, model: LightningModule, loss: Any = None) -> None:
        if self.error is not None:
            self.errors.append(self.error(model))
        elif isinstance(loss, Tensor):
            self.errors.append(float(loss))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_due = batch_idx == EVERY - 1 or trainer.global_step == trainer.max_steps
        if self.errors and not is_due:
            return
        self._measure(pl_module, outputs.get("loss") if isinstance(outputs, dict) else outputs)
        trainer.should_stop |= self.last <= self.enough or time.monotonic() > self.deadline


def stop_schedulers(trainer: Trainer) -> None:
    """Let no scheduler change a rate, whoever steps it."""
    for config in trainer.lr_scheduler_configs:
        config.scheduler.step = lambda *_, **__: None
        config.strict = False  # or Lightning asks for the metric of a ReduceLROnPlateau, which no validation gives


def full_rate(group: dict[str, Any]) -> float:
    """The learning rate of an optimizer's parameter group before a scheduler changed it, or the schedule's highest."""
    return float(group.get("max_lr", group.get("initial_lr", group["lr"])))


def overfit(model: LightningModule, batch: Any, trainer: Trainer, trial: Trial) -> Trial:
    """Train a copy of a model on one batch, on the device, without weight decay, dropout and schedules, but with a
    trainer's precision and clipping; returns how it went.
    """
    without_dropout(model)
    trial.data = trainer.datamodule
    clipping = [copy.copy(c) for c in trainer.callbacks if isinstance(c, GradientClipping)]
    with warnings.catch_warnings(action="ignore"):
        small = Trainer(
            accelerator="cpu" if trainer.strategy.root_device.type == "cpu" else "auto",
            devices=1,
            precision=trainer.precision,
            max_steps=trial.max_steps,
            callbacks=[trial, *clipping],
            limit_val_batches=0,
            use_distributed_sampler=False,
            log_every_n_steps=10**9,
            **SILENT,
        )
        try:
            small.fit(model, train_dataloaders=DataLoader([batch] * EVERY, batch_size=None, collate_fn=lambda b: b))
        except Exception as exception:  # whatever somebody's training_step raises is what there is to report
            trial.problem = " ".join(f"{type(exception).__name__}: {exception}".split())[:200]
    trial.steps = small.global_step
    return trial


def trial_copy(model: LightningModule, state: dict[str, Tensor], network: str = "") -> LightningModule:
    """A copy with these weights; ``prepare_trial(network)``, if any, drops penalties and trains that network alone."""
    found = copy.deepcopy(model)
    found.load_state_dict(state, strict=False)
    if hasattr(found, "prepare_trial"):
        found.prepare_trial(network)
    return found


def without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
