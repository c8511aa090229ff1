"""How much of a run is over, in steps or in minutes."""

from __future__ import annotations

import math
import sys

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from workbench.errors import UserError

NEVER = sys.maxsize  # frequency of a scheduler that Lightning must not step: the module steps it at validations
BROADCAST_EVERY = 20  # steps between two looks at the clock when several processes have to agree on the time


class RunProgress:
    """The share of a run that is over, in steps or in time, whichever is further, in [0, 1] or a little above.

    ``total_steps`` is infinite where only ``trainer.max_time`` limits the run. UserError where nothing does.
    """

    def __init__(self, trainer: Trainer, total_steps: float) -> None:
        timers = [c for c in trainer.callbacks if isinstance(c, Timer) and c.time_remaining() is not None]
        if math.isinf(total_steps) and not timers:
            raise UserError(
                "The learning-rate schedule follows the run's length, but this run has none.\n"
                "Set trainer.max_steps, trainer.max_epochs or trainer.max_time, or use another scheduler."
            )
        self.trainer, self.timer = trainer, timers[0] if timers else None
        self.total_steps = max(total_steps, 1)
        self._agreed, self._agreed_at = 0.0, -BROADCAST_EVERY

    def local(self) -> float:
        """As this process sees it, to be shown."""
        steps = self.trainer.global_step / self.total_steps
        if self.timer is None:
            return steps
        elapsed = self.timer.time_elapsed()
        whole = elapsed + self.timer.time_remaining()
        return max(steps, elapsed / whole if whole > 0 else 1.0)

    def __call__(self) -> float:
        """The same on all processes, which call it at the same steps: from their clocks their weights would differ."""
        step = self.trainer.global_step
        if self.timer is None or self.trainer.world_size == 1:
            return self.local()
        if step >= self._agreed_at + BROADCAST_EVERY:
            self._agreed, self._agreed_at = self.trainer.strategy.broadcast(self.local()), step
        return max(step / self.total_steps, self._agreed)
