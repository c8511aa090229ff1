"""How much of a run is over, in steps or in minutes, and one bar that shows it beside the loss and a metric."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer, TQDMProgressBar
from tqdm import tqdm

from workbench.errors import UserError

NEVER = sys.maxsize  # frequency of a scheduler that Lightning must not step: the module steps it at validations
BROADCAST_EVERY = 20  # steps between two looks at the clock when several processes have to agree on the time
REFRESH_SECONDS = 0.5  # reading the loss waits for the device


class RunProgress:
    """The share of a run that is over, in steps or in time, whichever is further: in [0, 1] or a little above. A
    UserError where ``total_steps`` is infinite and no ``trainer.max_time`` limits the run."""

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


def print_above_bar(trainer: Trainer, text: str) -> None:
    """Print without breaking the progress bar, where there is one."""
    bar = trainer.progress_bar_callback
    (bar.print if bar is not None else print)(text)


class Progress(TQDMProgressBar):
    """Lightning's bars, but that of training spans the run, and shows beside the loss the metric that the checkpoint
    callback monitors, or else the first of the validation; plain lines where there is no terminal."""

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}"

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self._progress: Callable[[], float] = float
        self._refreshed = self._started = self._share_at_start = 0.0

    @property
    def is_enabled(self) -> bool:
        return super().is_enabled and sys.stdout.isatty()

    def print(self, *args: Any, **kwargs: Any) -> None:
        if self.is_enabled:
            super().print(*args, **kwargs)
        else:
            print(*args, flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        try:
            self._progress = RunProgress(trainer, trainer.estimated_stepping_batches).local
        except UserError:  # a run without an end: only early stopping, or Ctrl-C, stops it
            self._progress = float
        self._started, self._share_at_start = time.monotonic(), self._progress()
        bar = self.train_progress_bar
        bar.total, bar.n, bar.initial = 1.0, self._share_at_start, self._share_at_start

    def on_train_epoch_start(self, *_: Any) -> None:
        """Do not start a new bar."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any = None, *_: Any) -> None:
        if self.is_enabled and time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            self._refreshed, self.train_progress_bar.n = time.monotonic(), self._share()
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module, outputs))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._refreshed = 0.0  # not too early to show the end of the run
        self.on_train_batch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._print_line(f"{self._share():4.0%}  left {self._time_left()}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        early = trainer.should_stop and self._share() < 1
        self._print_line(f"{self._share():4.0%}  stopped early" if early else "100%  done")

    def on_exception(self, *_: Any) -> None:
        if self.is_enabled:
            print()  # behind the bar

    def _print_line(self, state: str) -> None:
        if self.trainer.is_global_zero and not self.is_enabled:
            metrics = self.get_metrics(self.trainer, self.trainer.lightning_module)
            print("  ".join(f"{name} {value}" for name, value in metrics.items()), state, sep="  ", flush=True)

    def _share(self) -> float:
        return min(self._progress(), 1.0)  # a run by the clock ends a moment late

    def _time_left(self) -> str:
        done = self._share() - self._share_at_start
        if done <= 0:
            return "?"
        return tqdm.format_interval((time.monotonic() - self._started) * (1 - self._share()) / done)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule, outputs: Any = None) -> dict[str, str]:
        logged = trainer.callback_metrics
        loss = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else logged.get("train/loss")
        monitored = getattr(trainer.checkpoint_callback, "monitor", None)
        name = monitored or next((key for key in logged if key.startswith("val")), "val")
        values = {"loss": loss, name: logged.get(name)}
        shown = {name: f"{float(value):.4g}" for name, value in values.items() if value is not None}
        return {"step": str(trainer.global_step), **shown}
