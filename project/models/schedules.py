"""A learning rate that follows the run's own length, in steps or in minutes."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from workbench.errors import UserError

WARMUP_START = 0.01
"""Share of the learning rate in the very first step: a step of rate 0 would teach nothing."""


def warmup_cosine(progress: float, warmup: float, final: float, cycles: int = 1) -> float:
    """The factor on the learning rate: a straight line up to 1, then half a cosine down to ``final``.

    Source of the cycles: Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts".

    Args:
        progress: Share of the run that is over, in [0, 1]; more counts as 1.
        warmup: Share of the run in which the factor rises, in [0, 1).
        final: Factor at the end of the run.
        cycles: So many half cosines, one after the other, each from 1 down to ``final``.
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
        last_epoch: Steps already done; -1 for a fresh start.
        cycles: So often the rate falls, each time from its height: the end of each is a good model of its own, see
            ``--checkpoint.snapshots cycles``.

    Raises:
        UserError: When ``warmup`` is not in [0, 1) or ``cycles`` below 1, or at the first step when nobody told the
            run's length.
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.03,
        final: float = 0.001,
        total_steps: int | None = None,
        last_epoch: int = -1,
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
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """One learning rate a parameter group."""
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
