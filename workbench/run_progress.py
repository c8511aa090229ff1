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
    """The share of a run that is over, in steps or in time, whichever is further; never waits for the device.

    ``total_steps`` is infinite where only ``trainer.max_time`` limits the run. UserError where nothing does.
    """

    def __init__(self, trainer: Trainer, total_steps: float) -> None:
        timers = [c for c in trainer.callbacks if isinstance(c, Timer) and c.time_remaining() is not None]
        if math.isinf(total_steps) and not timers:
            raise UserError(
                "The learning-rate schedule follows the run's length, but this run has none.\n"
                "Set trainer.max_steps, trainer.max_epochs or trainer.max_time, or use another scheduler."
            )
        self.trainer = trainer
        self.total_steps = max(total_steps, 1)
        self.timer = timers[0] if timers else None
        self._agreed_at = -BROADCAST_EVERY
        self._agreed = 0.0

    def __call__(self) -> float:
        """In [0, 1], or a little above at the very end."""
        step = self.trainer.global_step
        if self.timer is None:
            return step / self.total_steps
        # Clocks differ between processes, and with them the learning rates would, and then the weights.
        if self.trainer.world_size == 1:
            self._agreed = self._time_share()
        elif step >= self._agreed_at + BROADCAST_EVERY:
            self._agreed, self._agreed_at = self.trainer.strategy.broadcast(self._time_share()), step
        return max(step / self.total_steps, self._agreed)

    def _time_share(self) -> float:
        elapsed = self.timer.time_elapsed()
        whole = elapsed + self.timer.time_remaining()
        return elapsed / whole if whole > 0 else 1.0
