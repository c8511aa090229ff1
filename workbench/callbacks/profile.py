"""Where the time of a training step goes: one table, the slowest part first."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.profilers import Profiler

from workbench.callbacks.progress import print_above_bar

SKIPPED = 5  # first steps, which are slower: memory is allocated, kernels are chosen
PARTS = (
    (r"dataloader_next", "data: waiting for the loader"),
    (r"batch_to_device|batch_transfer", "data: to the device, and what is made there"),
    (r"\.training_step$", "forward"),
    (r"\.backward$|on_(before|after)_backward", "backward"),
    (r"optimizer_step|zero_grad|gradient_clipping|lr_scheduler", "optimizer"),
)


class StepProfile(Callback):
    """Time the parts of a step, each without what is timed inside it, unlike in Lightning's profilers; print them.

    On an accelerator each part waits for the device, which makes the timed steps slower.

    Args:
        steps: Time so many steps, after the first five, then train on as usual; 0 for none. --profile alone: 50.
    """

    def __init__(self, steps: NonNegativeInt = 0) -> None:
        self.steps, self.enabled, self._done = steps, steps > 0, 0
        self._timer: _Timer | None = None

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._done == SKIPPED and self.enabled:
            trainer.profiler = self._timer = _Timer(trainer)
        elif self._done == SKIPPED + self.steps:
            self.on_train_end(trainer)
        self._done += 1

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        if self._timer is None:
            return
        if trainer.is_global_zero:
            print_above_bar(trainer, self._timer.table(self._done - SKIPPED))
        trainer.profiler, self._timer = self._timer.before, None


class _Timer(Profiler):
    """Sums the seconds of each part, without those of the actions inside it and of validations."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.trainer, self.before = trainer, trainer.profiler
        self._parts: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._latest = time.perf_counter()

    def _count(self) -> None:
        """The time since the last event belongs to the innermost action."""
        device = self.trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if not self.trainer.validating:
            self._parts[_part_of(self._stack[-1] if self._stack else "")] += now - self._latest
        self._latest = now

    def start(self, action_name: str) -> None:
        self._count()
        self._stack.append(action_name)

    def stop(self, action_name: str) -> None:
        self._count()
        if self._stack and self._stack[-1] == action_name:  # those that began before the timer do not count
            self._stack.pop()

    def table(self, steps: int) -> str:
        self._count()
        total = max(sum(self._parts.values()), 1e-12)
        lines = [f"A step takes {total / steps * 1000:.1f} ms (mean of {steps}):"]
        for part, seconds in sorted(self._parts.items(), key=lambda entry: -entry[1]):
            lines.append(f"  {part:<44}{seconds / steps * 1000:9.2f} ms {seconds / total:6.1%}")
        return "\n".join(lines)


def _part_of(action: str) -> str:
    if callback := re.match(r"\[Callback\](\w+)", action):
        return f"callback {callback[1]}"
    return next((part for pattern, part in PARTS if re.search(pattern, action)), "rest: logging, Lightning")
