"""Images a second, and memory of host and device, over the run; a plot of both at its end."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from workbench.lightning_private import logs_now, steps_done
from workbench.loggers import log_image
from workbench.watch.monitor import Monitor

FILE = "throughput.csv"
HEADER = "step,minutes,pictures_per_second,host_mib,device_mib"
MEBIBYTE = 2**20


class Throughput(Monitor):
    """Logs, whenever Lightning logs, ``throughput/pictures_per_second`` (of all processes together, validations left
    out), ``memory/host_mib`` (of the main process, without its data workers) and ``memory/device_mib`` (the most that
    tensors took since the last log); draws them over time as ``throughput.png`` when the run ends.

    They go to Weights & Biases and TensorBoard, and into ``throughput.csv``; not into metrics.csv, which is the same to
    the last figure whenever the run is repeated.

    Args:
        enabled: Whether to measure.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__("throughput", int(enabled))
        self._before = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._began = time.perf_counter()
        if self.recorder is not None:  # a resumed run goes on in time as well
            rows = _read(self.recorder.files.read(FILE))
            self._before = rows[-1]["minutes"] if rows else 0.0
        self._start_over()

    def _start_over(self) -> None:
        self._since, self._pictures, self._away = time.perf_counter(), 0, 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and log now and then."""
        if self.recorder is None:
            return
        self._pictures += _length(batch)
        if logs_now(trainer):
            # Fetching waits for the device: only then is the time that of whole steps.
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._note(trainer, pl_module.device)

    def _note(self, trainer: Trainer, device: torch.device) -> None:
        seconds = time.perf_counter() - self._since - self._away
        if self._pictures and seconds > 0 and trainer.is_global_zero:
            speed = self._pictures * trainer.world_size / seconds
            host, on_device = host_memory(), device_memory(device)
            minutes = self._before + (time.perf_counter() - self._began) / 60
            row = [f"{minutes:.4f}", *("" if value is None else f"{value:.1f}" for value in (speed, host, on_device))]
            self.recorder.files.append(FILE, [",".join([str(steps_done(trainer)), *row])], HEADER)
            values = {"throughput/pictures_per_second": speed, "memory/host_mib": host, "memory/device_mib": on_device}
            known = {name: value for name, value in values.items() if value is not None}
            for logger in trainer.loggers:
                if not isinstance(logger, CSVLogger):
                    logger.log_metrics(known, step=steps_done(trainer))
        self._start_over()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock stops."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock goes on."""
        if self.recorder is not None and not trainer.sanity_checking:
            self._away += time.perf_counter() - self._paused

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        files = self.recorder.files if self.recorder is not None else None
        rows = _read(files.read(FILE)) if files is not None else []
        if len(rows) > 1:
            _draw(rows, files.folder / "throughput.png")
            log_image(trainer, "throughput", files.folder / "throughput.png")


def host_memory() -> float | None:
    """Resident memory of this process in MiB; on macOS its maximum so far; None where the system does not tell."""
    status = Path("/proc/self/statm")
    if status.is_file():
        import resource

        return int(status.read_text().split()[1]) * resource.getpagesize() / MEBIBYTE
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE
    return None


def device_memory(device: torch.device) -> float | None:
    """The most MiB that tensors took on an accelerator since the last call; None on a CPU."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / MEBIBYTE
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    return torch.mps.current_allocated_memory() / MEBIBYTE if device.type == "mps" else None


def _length(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    if isinstance(batch, dict):
        batch = list(batch.values())
    return next((n for n in map(_length, batch) if n), 0) if isinstance(batch, list | tuple) else 0


def _read(lines: list[str]) -> list[dict[str, float]]:
    """Rows of the file by their columns; without what was not known."""
    return [
        {name: float(value) for name, value in row.items() if value and name}
        for row in csv.DictReader(lines)
        if None not in row.values() and row["minutes"]
    ]


def _draw(rows: list[dict[str, float]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    minutes = [row["minutes"] for row in rows]
    memory = {name: [row.get(f"{name}_mib") for row in rows] for name in ("host", "device")}
    memory = {name: values for name, values in memory.items() if None not in values}
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(minutes, [row["pictures_per_second"] for row in rows])
    above.set(title="training speed, validations left out", ylabel="images / s")
    above.set_ylim(bottom=0)
    for name, values in memory.items():
        below.plot(minutes, values, label=name)
    below.set(title="memory", xlabel="minutes", ylabel="MiB")
    below.set_ylim(bottom=0)
    if memory:
        below.legend()
    figure.savefig(path, dpi=110)
