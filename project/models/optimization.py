"""Optimiser and scheduler of a run: when the scheduler steps, what it watches, and how long the run is."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from project.errors import UserError
from project.models.schedules import RunProgress

Built = TypeVar("Built")
EVERY = ("auto", "step", "epoch")
NEVER = sys.maxsize
"""The frequency of a scheduler that Lightning keeps and saves, but does not step."""


def build(key: str, make: Callable[..., Built], *arguments: Any, **more: Any) -> Built:
    """Call an optimiser's or scheduler's class with what the configuration says.

    Raises:
        UserError: When the class refuses its arguments; names the key.
    """
    try:
        return make(*arguments, **more)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.{key} cannot be built: {error}") from error


def configure_scheduler(
    make: LRSchedulerCallable, optimizer: Optimizer, trainer: Trainer, every: str, monitor: str, higher_is_better: bool
) -> dict[str, Any]:
    """Build a scheduler, tell it the run's length where it wants to know, and say how Lightning steps it.

    Args:
        make: Optimiser -> scheduler.
        optimizer: Whose learning rates it sets.
        trainer: The running trainer.
        every: step, epoch, or auto: what the scheduler is made for (OneCycleLR, CyclicLR and classes with an attribute
            ``interval = "step"`` after every batch, ReduceLROnPlateau after every validation, through
            :func:`step_plateaus`, all others after every epoch).
        monitor: Logged value that ReduceLROnPlateau watches, unless it brings its own ``monitor``.
        higher_is_better: Whether that value is better when it is higher.

    Returns:
        Lightning's description of a scheduler.

    Raises:
        UserError: When the scheduler refuses its arguments, or follows the run's length and the run has none.
    """
    scheduler = _build(make, optimizer, trainer)
    description: dict[str, Any] = {"scheduler": scheduler, "interval": _interval(scheduler, every), "frequency": 1}
    if isinstance(scheduler, ReduceLROnPlateau):
        description["monitor"] = getattr(scheduler, "monitor", monitor)
        mode = "max" if higher_is_better else "min"
        if description["monitor"] == monitor and scheduler.mode != mode:
            # Its default is to wait for a fall, which for a PSNR would cut the rate while all is well.
            description["scheduler"] = build("scheduler", make, optimizer, mode=mode)
        if every == "auto":
            # Lightning counts batches or epochs, and asks for a score that may not be there yet.
            description["frequency"] = NEVER
        elif every == "epoch":
            description["frequency"] = trainer.check_val_every_n_epoch or 1
        else:
            description["frequency"] = int(trainer.val_check_batch)
    return description


def step_plateaus(trainer: Trainer, scores: dict[str, Tensor]) -> None:
    """Step the ReduceLROnPlateau schedulers that follow the validations; call it after each, before it is saved.

    Args:
        trainer: The running trainer.
        scores: What the validation has logged.

    Raises:
        UserError: When nothing of the name that a scheduler watches is logged.
    """
    for config in trainer.lr_scheduler_configs:
        if not config.reduce_on_plateau or config.frequency != NEVER:
            continue
        logged = {**trainer.callback_metrics, **scores}
        if config.monitor not in logged:
            raise UserError(
                f"ReduceLROnPlateau watches {config.monitor!r} (model.monitor), which is not logged.\n"
                f"There are: {', '.join(sorted(logged))}."
            )
        config.scheduler.step(logged[config.monitor])


def _build(make: LRSchedulerCallable, optimizer: Optimizer, trainer: Trainer) -> LRScheduler:
    try:
        scheduler = build("scheduler", make, optimizer)
    except UserError as error:
        if "total_steps" not in str(error):
            raise
        scheduler = build("scheduler", make, optimizer, total_steps=_total_steps(trainer))
    if hasattr(scheduler, "progress") and getattr(scheduler, "total_steps", None) is None:
        scheduler.progress = RunProgress(trainer, trainer.estimated_stepping_batches)
    return scheduler


def _interval(scheduler: LRScheduler, every: str) -> str:
    if every != "auto":
        return every
    if isinstance(scheduler, OneCycleLR | CyclicLR):
        return "step"
    return getattr(scheduler, "interval", "epoch")


def _total_steps(trainer: Trainer) -> int:
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise UserError(
            "OneCycleLR has to know how many steps the run has, but only time bounds this one.\n"
            "Set trainer.max_steps or trainer.max_epochs, or model.scheduler.init_args.total_steps,\n"
            "or use project.models.WarmupCosine, which follows trainer.max_time too."
        )
    return int(steps)
