"""One bar for the whole run: time left, loss and metrics; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from workbench.errors import UserError
from workbench.run_progress import RunProgress

REFRESH_SECONDS = 0.5
"""Between two refreshes: reading the loss waits for the device."""


class Progress(ProgressBar):
    """Show how far the whole run is, in steps or by the clock; Lightning's bars show an epoch.

    Args:
        metrics: Logged metrics to show beside the loss; none: the one that the checkpoint callback monitors, or the
            first one of the validation.
    """

    def __init__(self, metrics: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.metrics = tuple(metrics)
        self._is_shown = True
        self._bar: Any = None
        self._task: Any = None
        self._refreshed = self._started = self._share_at_start = 0.0
        self._progress: Callable[[], float] = float

    def disable(self) -> None:
        self._is_shown = False

    def enable(self) -> None:
        self._is_shown = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        (self._bar.console.print if self._bar else print)(*args)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            self._progress = RunProgress(trainer, trainer.estimated_stepping_batches)
        except UserError:  # a run without an end: only early stopping, or Ctrl-C, stops it
            self._progress = float
        self._started, self._share_at_start = time.monotonic(), self._progress()
        self._open("training")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        now = time.monotonic()
        if self._bar is not None and now - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = now
            self._show(trainer, outputs)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description="validating")
        elif trainer.state.fn == "validate":
            self._open("validating")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        if self._bar is not None and trainer.state.fn == "validate":
            self._bar.update(self._task, completed=(batch_idx + 1) / trainer.num_val_batches[loader])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not self._is_shown:
            return
        if trainer.state.fn == "validate":
            self._close()
        elif self._bar is not None:
            self._bar.update(self._task, description="training")
            self._show(trainer)
        elif trainer.is_global_zero:
            share = self._share()
            values = "  ".join(self._values(trainer))
            print(f"step {trainer.global_step}  {share:4.0%}  left {self._time_left(share)}  {values}", flush=True)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open("testing")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=(batch_idx + 1) / trainer.num_test_batches[loader])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._show(trainer)
        self._close()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _open(self, description: str) -> None:
        from rich import progress
        from rich.console import Console

        console = Console()
        if not (self._is_shown and self.trainer.is_global_zero and console.is_terminal):
            return
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}"),
            progress.TextColumn("[bold]{task.fields[values]}"),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(description, total=1.0, left="", values="")
        self._bar.start()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: Trainer, outputs: Any = None) -> None:
        share = self._share()
        values = "  ".join([f"step {trainer.global_step}", *self._values(trainer, outputs)])
        self._bar.update(self._task, completed=share, left=f"left {self._time_left(share)}", values=values)

    def _share(self) -> float:
        return min(self._progress(), 1.0)  # a run by the clock ends a moment late

    def _values(self, trainer: Trainer, outputs: Any = None) -> list[str]:
        logged = trainer.callback_metrics
        loss = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else logged.get("train/loss")
        values = [] if loss is None else [f"loss {float(loss):.4f}"]
        monitored = getattr(trainer.checkpoint_callback, "monitor", None)
        names = self.metrics or ([monitored] if monitored else [key for key in logged if key.startswith("val")][:1])
        found = {name: float(logged[name]) for name in names if name in logged}
        return values + [f"{name} {value:.{2 if abs(value) >= 1 else 4}f}" for name, value in found.items()]

    def _time_left(self, share: float) -> str:
        done = share - self._share_at_start
        return _clock((time.monotonic() - self._started) * (1 - share) / done) if done > 0 else "-:--"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
