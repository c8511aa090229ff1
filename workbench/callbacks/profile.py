"""Where the time of a training step goes: one table, the slowest part first."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

SKIPPED = 5  # first steps, which are slower: memory is allocated, kernels are chosen
PARTS = (
    (r"dataloader_next", "data: waiting for the loader"),
    (r"batch_to_device|batch_transfer", "data: to the device, and what is made there"),
    (r"\.training_step$", "forward"),
    (r"\.backward$|on_(before|after)_backward", "backward"),
    (r"optimizer_step|zero_grad|gradient_clipping|lr_scheduler", "optimizer"),
)


class StepProfile(Callback):
    """Time the parts of a step, print them, and write them to ``profile.txt`` in the run's folder.

    Lightning's profilers count nested actions twice; here each part is without what is timed inside it. On an
    accelerator each part waits for the device, which makes the timed steps slower.

    Args:
        steps: Time so many steps, after the first five, then train on as usual; 0 for none. --profile alone: 50.
    """

    def __init__(self, steps: NonNegativeInt = 0) -> None:
        self.steps = steps
        self._timer: _Timer | None = None
        self._before: Profiler | None = None
        self._folder: str | None = None
        self._done = 0

    @property
    def enabled(self) -> bool:
        return self.steps > 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._done, self._timer = 0, None
        self._folder = trainer.log_dir if trainer.loggers and not trainer.fast_dev_run else None  # all processes ask

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if not self.enabled or self._done > SKIPPED + self.steps or not trainer.is_global_zero:
            return
        if self._done == SKIPPED:
            self._before, self._timer = trainer.profiler, _Timer(pl_module.device)
            trainer.profiler = self._timer
        elif self._done == SKIPPED + self.steps:
            self._finish(trainer)
        self._done += 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    def on_validation_start(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.pause(True)

    def on_validation_end(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.pause(False)

    def _finish(self, trainer: Trainer) -> None:
        if self._timer is None:
            return
        text = table(self._timer.parts(), max(self._done - SKIPPED, 1))
        trainer.profiler, self._timer = self._before, None
        bar = trainer.progress_bar_callback
        (bar.print if bar is not None else print)(text)
        if self._folder is not None:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            Path(self._folder, "profile.txt").write_text(text + "\n", encoding="utf-8")


class _Timer(Profiler):
    """Sums the time of each of Lightning's actions, without that of the actions inside it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self._own: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._latest = time.perf_counter()
        self._paused = False

    def _count(self) -> None:
        """The time since the last event belongs to the innermost action."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if not self._paused:
            self._own[self._stack[-1] if self._stack else "rest"] += now - self._latest
        self._latest = now

    def start(self, action_name: str) -> None:
        self._count()
        self._stack.append(action_name)

    def stop(self, action_name: str) -> None:
        self._count()
        if self._stack and self._stack[-1] == action_name:  # those that began before the timer do not count
            self._stack.pop()

    def pause(self, paused: bool) -> None:
        self._count()
        self._paused = paused

    def parts(self) -> dict[str, float]:
        self._count()
        found: dict[str, float] = defaultdict(float)
        for action, seconds in self._own.items():
            found[part_of(action)] += seconds
        return found


def part_of(action: str) -> str:
    if callback := re.match(r"\[Callback\](\w+)", action):
        return f"callback {callback[1]}"
    return next((part for pattern, part in PARTS if re.search(pattern, action)), "rest: logging, Lightning")


def table(parts: dict[str, float], steps: int) -> str:
    total = max(sum(parts.values()), 1e-12)
    lines = [f"A step takes {total / steps * 1000:.1f} ms (mean of {steps}):"]
    for part, seconds in sorted(parts.items(), key=lambda entry: -entry[1]):
        lines.append(f"  {part:<44}{seconds / steps * 1000:9.2f} ms {seconds / total:6.1%}")
    return "\n".join(lines)
