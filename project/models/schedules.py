"""The optimizer and the learning-rate schedule of a run, which may follow the run's own length, in steps or minutes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from project.models.finetune import FineTuning, parameter_groups, scale_rates
from workbench.errors import UserError
from workbench.run_progress import NEVER, RunProgress

T = TypeVar("T")
WARMUP_START = 0.01  # share of the learning rate in the very first step, which a rate of 0 would waste


def warmup_cosine(progress: float, warmup: float, final: float, cycles: int = 1) -> float:
    """The factor on the learning rate: linear up to 1 for ``warmup`` of the run, then half a cosine down to ``final``.

    With ``cycles`` that many half cosines, one after the other (Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient
    Descent with Warm Restarts"). ``progress`` is the share of the run that is over; more than 1 counts as 1.
    """
    if progress < warmup:
        return WARMUP_START + (1 - WARMUP_START) * progress / warmup
    past = min((progress - warmup) / (1 - warmup), 1.0) * cycles
    past -= min(int(past), cycles - 1)  # the very end belongs to the last one
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * past))


class WarmupCosine(LRScheduler):
    """Linear warm-up, then half a cosine, over the run's own length; steps after every batch.

    Inside a Trainer the length is the run's own, whichever comes first of max_steps, max_epochs and max_time: a run
    that is bounded by minutes ends annealed as well.

    Args:
        optimizer: Whose learning rates to set.
        warmup: Share of the run in which the rate rises, in [0, 1).
        final: Share of the learning rate that is left at the end.
        total_steps: Length of the run in steps; null inside a Trainer, which knows it.
        cycles: How often the rate falls, each time from its maximum: the end of each is a good model of its own, see
            ``--checkpoint.snapshots cycles``.
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.03,
        final: float = 0.001,
        total_steps: int | None = None,
        cycles: int = 1,
    ) -> None:
        if not 0 <= warmup < 1:
            raise UserError(f"WarmupCosine: warmup is a share of the run, in [0, 1), not {warmup}.")
        if cycles < 1:
            raise UserError(f"WarmupCosine: cycles must be at least 1, not {cycles}.")
        self.cycles = cycles
        self.warmup = warmup
        self.final = final
        self.total_steps = total_steps
        self.progress: Callable[[], float] | None = None
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        if self.total_steps is not None:
            progress = self.last_epoch / self.total_steps
        elif self.progress is not None:
            progress = self.progress()
        elif self.last_epoch <= 0:
            progress = 0.0
        else:
            raise UserError("WarmupCosine does not know the run's length: give it total_steps outside of a Trainer.")
        factor = warmup_cosine(progress, self.warmup, self.final, self.cycles)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, object]:
        """Plain values only: the progress belongs to the run, not to the checkpoint."""
        return {name: value for name, value in super().state_dict().items() if name != "progress"}


def configure_optimizer(
    model: LightningModule,
    network: nn.Module,
    make_optimizer: OptimizerCallable,
    make_scheduler: LRSchedulerCallable | None,
    tuning: FineTuning,
    prefix: str = "",
) -> dict[str, Any]:
    """Lightning's description of a network's optimizer and scheduler; ``prefix`` begins their configuration keys."""
    optimizer = _build(f"{prefix}optimizer", make_optimizer, parameter_groups(network, tuning))
    scale_rates(optimizer)
    if make_scheduler is None:
        return {"optimizer": optimizer}
    key = f"{prefix}scheduler"
    try:
        scheduler = _build(key, make_scheduler, optimizer)
    except UserError as error:
        if "total_steps" not in str(error):
            raise
        steps = model.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise UserError(
                f"OneCycleLR needs trainer.max_steps, trainer.max_epochs or model.{key}.init_args.total_steps.\n"
                "For a run that only time bounds use project.models.WarmupCosine."
            ) from None
        scheduler = _build(key, make_scheduler, optimizer, total_steps=int(steps))
    mode = "max" if model.higher_is_better() else "min"
    plateau = isinstance(scheduler, ReduceLROnPlateau) and _monitored(model, scheduler) == model.monitor
    if plateau and scheduler.mode != mode:
        # Its default is to wait for a fall, which for a PSNR would cut the rate while all is well.
        scheduler = _build(key, make_scheduler, optimizer, mode=mode)
    scale_rates(optimizer, scheduler)
    if hasattr(scheduler, "progress") and getattr(scheduler, "total_steps", None) is None:
        scheduler.progress = RunProgress(model.trainer, model.trainer.estimated_stepping_batches)
    return {"optimizer": optimizer, "lr_scheduler": _describe(model, scheduler)}


def _describe(model: LightningModule, scheduler: LRScheduler) -> dict[str, Any]:
    """When Lightning steps it: as ``schedule_every`` says, or as the scheduler is meant."""
    if isinstance(scheduler, ReduceLROnPlateau):
        # step_plateaus does after each validation: Lightning counts batches or epochs, and a score may not exist yet.
        description = {"scheduler": scheduler, "interval": "epoch", "frequency": NEVER}
        return description | ({"monitor": _monitored(model, scheduler)} if model.automatic_optimization else {})
    meant = "step" if isinstance(scheduler, OneCycleLR | CyclicLR) else getattr(scheduler, "interval", "epoch")
    return {"scheduler": scheduler, "interval": meant if model.schedule_every == "auto" else model.schedule_every}


def _monitored(model: LightningModule, scheduler: ReduceLROnPlateau) -> str:
    """The logged value that the scheduler watches: its own, as LightningCLI's class has, or the model's."""
    return getattr(scheduler, "monitor", model.monitor)


def step_plateaus(model: LightningModule, scores: dict[str, Tensor]) -> None:
    """Step the run's ReduceLROnPlateau schedulers; call it after each validation, before a checkpoint is saved."""
    for config in model.trainer.lr_scheduler_configs:
        if not isinstance(config.scheduler, ReduceLROnPlateau) or config.frequency != NEVER:
            continue
        name, logged = _monitored(model, config.scheduler), {**model.trainer.callback_metrics, **scores}
        if name not in logged:
            raise UserError(
                f"ReduceLROnPlateau watches {name!r} (model.monitor), which is not logged.\n"
                f"There are: {', '.join(sorted(logged))}."
            )
        config.scheduler.step(logged[name])


def _build(key: str, make: Callable[..., T], *arguments: Any, **more: Any) -> T:
    try:
        return make(*arguments, **more)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.{key} cannot be built: {error}") from error
