"""The optimizer and the learning-rate schedule of a run, which may follow the run's own length, in steps or minutes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from project.models.finetune import FineTuning, parameter_groups
from workbench.callbacks.progress import NEVER, RunProgress
from workbench.errors import UserError

WARMUP_START = 0.01  # share of the learning rate in the very first step, which a rate of 0 would waste


def warmup_cosine(progress: float, warmup: float, final: float, cycles: int = 1) -> float:
    """The factor on the learning rate: linear up to 1 for ``warmup`` of the run, then half a cosine down to ``final``.

    With ``cycles`` that many half cosines (SGDR, Loshchilov and Hutter 2017), over the share ``progress`` of the run.
    """
    if progress < warmup:
        return WARMUP_START + (1 - WARMUP_START) * progress / warmup
    past = min((progress - warmup) / (1 - warmup), 1.0) * cycles
    past -= min(int(past), cycles - 1)  # the very end belongs to the last one
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * past))


class WarmupCosine(LRScheduler):
    """Linear warm-up, then half a cosine, over the run's own length, in steps or in minutes; steps after every batch.

    Args:
        warmup: Share of the run in which the rate rises, in [0, 1).
        final: Share of the learning rate that is left at the end.
        total_steps: Length of the run in steps; null in a Trainer, which knows it.
        cycles: How often the rate falls, each time from its maximum: see ``--checkpoint.snapshots cycles``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.03,
        final: float = 0.001,
        total_steps: int | None = None,
        cycles: int = 1,
    ) -> None:
        if not 0 <= warmup < 1 or cycles < 1:
            raise UserError(f"WarmupCosine: warmup must be in [0, 1), cycles at least 1, not {warmup} and {cycles}.")
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
    _scale_rates(optimizer, "lr")
    if make_scheduler is None:
        return {"optimizer": optimizer}
    key = f"{prefix}scheduler"
    try:
        scheduler = _build(key, make_scheduler, optimizer)
    except UserError as error:
        steps = model.trainer.estimated_stepping_batches
        if "total_steps" not in str(error):
            raise
        if math.isinf(steps):
            raise UserError("OneCycleLR needs trainer.max_steps or max_epochs; WarmupCosine does not.") from None
        scheduler = _build(key, make_scheduler, optimizer, total_steps=int(steps))
    interval = model.schedule_every
    if interval == "auto":
        interval = "step" if isinstance(scheduler, OneCycleLR | WarmupCosine) else "epoch"
    if isinstance(scheduler, CyclicLR) and any(group.get("factor", 1.0) != 1 for group in optimizer.param_groups):
        raise UserError("CyclicLR sets all rates alike: leave encoder_rate and stage_decay of model.finetune at 1.")
    if isinstance(scheduler, OneCycleLR):
        _scale_rates(optimizer, "initial_lr", "max_lr", "min_lr", "lr")  # which it has set itself
    if isinstance(scheduler, WarmupCosine) and scheduler.total_steps is None:
        scheduler.progress = RunProgress(model.trainer, model.trainer.estimated_stepping_batches)
    described = {"scheduler": scheduler, "interval": interval}
    if isinstance(scheduler, ReduceLROnPlateau):
        # Lightning counts batches or epochs, and a score may not exist yet: step_plateaus does it after validations.
        described |= {"frequency": NEVER} | ({"monitor": "val/loss"} if model.automatic_optimization else {})
    return {"optimizer": optimizer, "lr_scheduler": described}


def step_plateaus(trainer: Trainer, scores: dict[str, Tensor]) -> None:
    """Step the run's ReduceLROnPlateau schedulers, after each validation; they watch ``val/loss`` or what they say."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            name = getattr(config.scheduler, "monitor", "val/loss")
            if name not in scores:
                raise UserError(f"ReduceLROnPlateau watches {name!r}, which is not logged: {', '.join(scores)} are.")
            config.scheduler.step(scores[name])


def _scale_rates(optimizer: Optimizer, *keys: str) -> None:
    """Multiply these learning rates of each group by its ``factor``."""
    for group in optimizer.param_groups:
        group.update({key: group[key] * group.get("factor", 1.0) for key in keys})


def _build(key: str, make: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    try:
        return make(*arguments, **more)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.{key} cannot be built: {error}") from error
