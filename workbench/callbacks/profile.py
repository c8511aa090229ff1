"""Where the time of a training step goes: one table, the slowest part first."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

from workbench.errors import UserError

SKIPPED = 5
"""First steps, which are slower: memory is taken, kernels are chosen."""
PARTS = (
    (r"dataloader_next", "data: waiting for the loader"),
    (r"batch_to_device|batch_transfer", "data: to the device, and pairs made there"),
    (r"\.training_step$", "forward"),
    (r"\.backward$|on_(before|after)_backward", "backward"),
    (r"optimizer_step|zero_grad|gradient_clipping|lr_scheduler", "optimizer"),
)


class StepProfile(Callback):
    """Times the parts of a step and prints one table, the slowest first: data, forward, backward, optimizer, each
    callback, and the rest, which is logging and Lightning's own work. Each part without what is timed inside it. Also
    written to ``profile.txt`` in the run's folder. On an accelerator each part waits for the device, which makes the
    steps that are timed slower.

    Args:
        steps: Time so many steps, after the first five, then train on as usual; 0 for none. --profile alone: 50.

    Raises:
        UserError: When ``steps`` is negative.
    """

    def __init__(self, steps: int = 0) -> None:
        if steps < 0:
            raise UserError(f"profile.steps must be 0 or more, not {steps}.")
        self.steps = steps
        self._clock: _Clock | None = None
        self._before: Profiler | None = None
        self._folder: Path | None = None
        self._done = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be ready to count."""
        self._done, self._clock = 0, None
        folder = trainer.log_dir if self.steps and trainer.loggers and not trainer.fast_dev_run else None  # all ask
        self._folder = None if folder is None else Path(folder)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start and end at the same place of a step."""
        if self.steps == 0 or self._done > SKIPPED + self.steps or not trainer.is_global_zero:
            return
        if self._done == SKIPPED:
            self._before, self._clock = trainer.profiler, _Clock(pl_module.device)
            trainer.profiler = self._clock
        elif self._done == SKIPPED + self.steps:
            self._finish(trainer)
        self._done += 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is over before that many steps tells what it has."""
        if self._clock is not None:
            self._finish(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A validation is no part of a step."""
        if self._clock is not None:
            self._clock.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on."""
        if self._clock is not None:
            self._clock.go_on()

    def _finish(self, trainer: Trainer) -> None:
        text = table(self._clock.parts(), max(self._done - SKIPPED, 1))
        trainer.profiler, self._clock = self._before, None
        bar = trainer.progress_bar_callback
        (bar.print if bar is not None else print)(text)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "profile.txt").write_text(text + "\n", encoding="utf-8")


class _Clock(Profiler):
    """Counts the time of each of Lightning's actions, without that of the actions inside it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.own: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._began = self._latest = time.perf_counter()
        self._paused = False

    def _pass(self) -> None:
        """What has passed since the last event belongs to the innermost action."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if not self._paused:
            self.own[self._stack[-1] if self._stack else "rest"] += now - self._latest
        self._latest = now

    def start(self, action_name: str) -> None:
        self._pass()
        self._stack.append(action_name)

    def stop(self, action_name: str) -> None:
        self._pass()
        if self._stack and self._stack[-1] == action_name:  # those that began before the clock do not count
            self._stack.pop()

    def pause(self) -> None:
        self._pass()
        self._paused = True

    def go_on(self) -> None:
        self._pass()
        self._paused = False

    def parts(self) -> dict[str, float]:
        """Seconds of each part of the steps."""
        self._pass()
        found: dict[str, float] = defaultdict(float)
        for action, seconds in self.own.items():
            found[part_of(action)] += seconds
        return found


def part_of(action: str) -> str:
    """Which part of a step one of Lightning's actions belongs to."""
    callback = re.match(r"\[Callback\](\w+)", action)
    if callback:
        return f"callback {callback[1]}"
    return next((part for pattern, part in PARTS if re.search(pattern, action)), "rest: logging, Lightning")


def table(parts: dict[str, float], steps: int) -> str:
    """The parts, slowest first, in milliseconds a step."""
    whole = max(sum(parts.values()), 1e-12)
    lines = [f"A step takes {whole / steps * 1000:.1f} ms (mean of {steps}):"]
    for part, seconds in sorted(parts.items(), key=lambda entry: -entry[1]):
        lines.append(f"  {part:<44}{seconds / steps * 1000:9.2f} ms {seconds / whole:6.1%}")
    return "\n".join(lines)
