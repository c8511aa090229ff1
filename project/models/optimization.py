"""Optimizer and scheduler of a run: when the scheduler steps, what it watches, and how long the run is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from project.models.finetuning import scale_rates, scale_schedule
from workbench.errors import UserError
from workbench.run_progress import NEVER, RunProgress

Built = TypeVar("Built")
EVERY = ("auto", "step", "epoch")
"""The frequency of a scheduler that Lightning keeps and saves, but does not step."""


def build(key: str, make: Callable[..., Built], *arguments: Any, **more: Any) -> Built:
    """Call an optimizer's or scheduler's class with what the configuration says.

    Raises:
        UserError: When the class refuses its arguments; names the key.
    """
    try:
        return make(*arguments, **more)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.{key} cannot be built: {error}") from error


def make_optimizer(key: str, make: Callable[..., Optimizer], parameters: list[Any]) -> Optimizer:
    """Build an optimizer.

    Args:
        key: What the configuration calls it, for messages.
        make: Parameters or groups of them -> optimizer.
        parameters: Of :func:`project.models.finetuning.parameter_groups`: a ``factor`` of a group scales its rate.

    Raises:
        UserError: When the optimizer refuses its arguments.
    """
    optimizer = build(key, make, parameters)
    scale_rates(optimizer)
    return optimizer


def configure_scheduler(
    make: LRSchedulerCallable,
    optimizer: Optimizer,
    trainer: Trainer,
    every: str,
    monitor: str,
    higher_is_better: bool,
    key: str = "scheduler",
) -> dict[str, Any]:
    """Build a scheduler, tell it the run's length where it wants to know, and say how Lightning steps it.

    Args:
        make: Optimizer -> scheduler.
        optimizer: Whose learning rates it sets.
        trainer: The running trainer.
        every: step, epoch, or auto: what the scheduler is made for (OneCycleLR, CyclicLR and classes with an attribute
            ``interval = "step"`` after every batch, ReduceLROnPlateau after every validation, through
            :func:`step_plateaus`, all others after every epoch).
        monitor: Logged value that ReduceLROnPlateau watches, unless it brings its own ``monitor``.
        higher_is_better: Whether that value is better when it is higher.
        key: What the configuration calls the scheduler, for messages.

    Returns:
        Lightning's description of a scheduler.

    Raises:
        UserError: When the scheduler refuses its arguments, or follows the run's length and the run has none.
    """
    scheduler = _build(key, make, optimizer, trainer)
    description: dict[str, Any] = {"scheduler": scheduler, "interval": _interval(scheduler, every), "frequency": 1}
    if isinstance(scheduler, ReduceLROnPlateau):
        description["monitor"] = getattr(scheduler, "monitor", monitor)
        mode = "max" if higher_is_better else "min"
        if description["monitor"] == monitor and scheduler.mode != mode:
            # Its default is to wait for a fall, which for a PSNR would cut the rate while all is well.
            description["scheduler"] = build(key, make, optimizer, mode=mode)
        if every == "auto":
            # Lightning counts batches or epochs, and asks for a score that may not be there yet.
            description["frequency"] = NEVER
        elif every == "epoch":
            description["frequency"] = trainer.check_val_every_n_epoch or 1
        else:
            description["frequency"] = int(trainer.val_check_batch)
    return description


def step_plateaus(trainer: Trainer, schedules: Iterable[Any], scores: dict[str, Tensor]) -> None:
    """Step the ReduceLROnPlateau schedulers that follow the validations; call it after each, before it is saved.

    Args:
        trainer: The running trainer.
        schedules: The run's schedulers, as :class:`Schedule` or as Lightning's own configurations.
        scores: What the validation has logged.

    Raises:
        UserError: When nothing of the name that a scheduler watches is logged.
    """
    for schedule in schedules:
        if not isinstance(schedule.scheduler, ReduceLROnPlateau) or schedule.frequency != NEVER:
            continue
        logged = {**trainer.callback_metrics, **scores}
        if schedule.monitor not in logged:
            raise UserError(
                f"ReduceLROnPlateau watches {schedule.monitor!r} (model.monitor), which is not logged.\n"
                f"There are: {', '.join(sorted(logged))}."
            )
        schedule.scheduler.step(logged[schedule.monitor])


@dataclass
class Schedule:
    """A scheduler that the model steps itself, under manual optimization, where Lightning steps none.

    Attributes:
        scheduler: The scheduler.
        interval: step or epoch.
        frequency: Intervals between two steps; NEVER for one that follows the validations.
        monitor: Logged value that ReduceLROnPlateau watches.
    """

    scheduler: LRScheduler
    interval: str
    frequency: int
    monitor: str | None = None

    @classmethod
    def of(cls, description: dict[str, Any]) -> Schedule:
        """From what :func:`configure_scheduler` gives; here a plateau follows the validations whatever was told."""
        schedule = cls(**description)
        if isinstance(schedule.scheduler, ReduceLROnPlateau):
            schedule.frequency = NEVER
        return schedule


def step_schedules(schedules: Iterable[Schedule], interval: str, done: int) -> None:
    """Step the schedulers of an interval.

    Args:
        schedules: The run's schedulers.
        interval: step or epoch: which of the two has just ended.
        done: How many of them have, over the whole run.
    """
    for schedule in schedules:
        if schedule.interval == interval and done % schedule.frequency == 0:
            schedule.scheduler.step()


def _build(key: str, make: LRSchedulerCallable, optimizer: Optimizer, trainer: Trainer) -> LRScheduler:
    try:
        scheduler = build(key, make, optimizer)
    except UserError as error:
        if "total_steps" not in str(error):
            raise
        scheduler = build(key, make, optimizer, total_steps=_total_steps(trainer, key))
    scale_schedule(scheduler)
    if hasattr(scheduler, "progress") and getattr(scheduler, "total_steps", None) is None:
        scheduler.progress = RunProgress(trainer, trainer.estimated_stepping_batches)
    return scheduler


def _interval(scheduler: LRScheduler, every: str) -> str:
    if every != "auto":
        return every
    if isinstance(scheduler, OneCycleLR | CyclicLR):
        return "step"
    return getattr(scheduler, "interval", "epoch")


def _total_steps(trainer: Trainer, key: str) -> int:
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise UserError(
            "OneCycleLR has to know how many steps the run has, but only time bounds this one.\n"
            f"Set trainer.max_steps or trainer.max_epochs, or model.{key}.init_args.total_steps,\n"
            "or use project.models.WarmupCosine, which follows trainer.max_time too."
        )
    return int(steps)
