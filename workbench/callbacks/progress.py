"""One bar for the whole run: time left, loss and validation score; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from workbench.errors import UserError
from workbench.run_progress import RunProgress


class Progress(ProgressBar):
    """Shows how far the run is.

    Args:
        refresh_seconds: Time between two refreshes. Reading the loss waits for the device, so keep it above 0.2.
        metrics: Logged values to show beside the loss.
    """

    def __init__(self, refresh_seconds: float = 0.5, metrics: tuple[str, ...] = ("val/psnr",)) -> None:
        super().__init__()
        self.refresh_seconds, self.metrics = refresh_seconds, tuple(metrics)
        self._enabled = True
        self._bar: Any = None
        self._task: Any = None
        self._refreshed = self._started = 0.0
        self._progress: Callable[[], float] = float
        self._share_at_start = 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        (self._bar.console.print if self._bar else print)(*args)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            self._progress = RunProgress(trainer, trainer.estimated_stepping_batches)
        except UserError:  # a run without an end: only early stopping, or Ctrl-C, stops it
            self._progress = float
        self._started, self._share_at_start = time.monotonic(), self._progress()
        self._open("training")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self._bar is not None and now - self._refreshed >= self.refresh_seconds:
            self._refreshed = now
            self._show(trainer, outputs)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description="validating")
        elif trainer.state.fn == "validate":
            self._open("validating")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn == "validate":
            self._show_share((batch_idx + 1) / trainer.num_val_batches[dataloader_idx])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not self._enabled:
            return
        if trainer.state.fn == "validate":
            self._close()
            return
        if self._bar is not None:
            self._bar.update(self._task, description="training")
            self._show(trainer)
        elif trainer.is_global_zero:
            share = min(self._progress(), 1.0)  # a run by the clock ends a moment late
            text = "  ".join(f"{key} {value}" for key, value in self._values(trainer).items())
            print(
                f"step {trainer.global_step}  {share:4.0%}  left {_clock(self._time_left(share))}  {text}", flush=True
            )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open("testing")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._show_share((batch_idx + 1) / trainer.num_test_batches[dataloader_idx])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._show(trainer)
        self._close()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _open(self, description: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        console = Console()
        if not (self._enabled and self.trainer.is_global_zero and console.is_terminal):
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("[bold]{task.fields[values]}"),
        )
        self._bar = Bar(*columns, console=console, refresh_per_second=4)
        self._task = self._bar.add_task(description, total=1.0, left="", values="")
        self._bar.start()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: Trainer, outputs: Any = None) -> None:
        share = min(self._progress(), 1.0)
        values = {"step": str(trainer.global_step), **self._values(trainer, outputs)}
        self._bar.update(
            self._task,
            completed=share,
            left=f"left {_clock(self._time_left(share))}",
            values="  ".join(f"{key} {value}" for key, value in values.items()),
        )

    def _show_share(self, share: float) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=share)

    def _values(self, trainer: Trainer, outputs: Any = None) -> dict[str, str]:
        logged = trainer.callback_metrics
        loss = outputs["loss"] if isinstance(outputs, dict) and "loss" in outputs else logged.get("train/loss")
        values = {} if loss is None else {"loss": f"{float(loss):.4f}"}
        return values | {key: _short(float(logged[key])) for key in self.metrics if key in logged}

    def _time_left(self, share: float) -> float | None:
        done = share - self._share_at_start
        return (time.monotonic() - self._started) * (1 - share) / done if done > 0 else None


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
