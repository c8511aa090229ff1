"""Samples a second, and memory of host and device, over the run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from workbench.lightning_private import steps_done
from workbench.watch.recorder import Recorder

FILE = "throughput.csv"
HEADER = "step,minutes,pictures_per_second,host_mib,device_mib"
MEBIBYTE = 2**20


class Throughput:
    """Logs, whenever Lightning logs, ``throughput/pictures_per_second`` (samples of all processes, validations left
    out), ``memory/host_mib`` (of the main process, without its data workers) and ``memory/device_mib`` (the most that
    tensors took since the last log).

    They go into ``throughput.csv``, Weights & Biases and TensorBoard; not into metrics.csv, which is the same to the
    last digit whenever the run is repeated.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._began = time.perf_counter()
        rows = recorder.files.read(FILE)[1:]  # a resumed run adds to the time of before
        self._before = float(rows[-1].split(",")[1]) if rows else 0.0
        self._restart()

    def _restart(self) -> None:
        self._since, self._samples, self._paused = time.perf_counter(), 0, 0.0

    def count(self, batch: Any) -> None:
        """Count a batch."""
        self._samples += batch_length(batch)

    def log(self, device: torch.device) -> None:
        """Log; right after values were fetched from the device, so that the time is that of whole steps."""
        trainer, now = self.recorder.trainer, time.perf_counter()
        seconds = now - self._since - self._paused
        if self._samples and seconds > 0 and trainer.is_global_zero:
            speed = self._samples * trainer.world_size / seconds
            host, on_device = host_memory(), device_memory(device)
            numbers = ["" if value is None else f"{value:.1f}" for value in (speed, host, on_device)]
            minutes = self._before + (now - self._began) / 60
            self.recorder.files.append(FILE, [",".join([str(steps_done(trainer)), f"{minutes:.4f}", *numbers])], HEADER)
            values = {"throughput/pictures_per_second": speed, "memory/host_mib": host, "memory/device_mib": on_device}
            self.recorder.log({name: value for name, value in values.items() if value is not None}, to_csv=False)
        self._restart()

    def pause(self) -> None:
        """Stop the clock, for a validation."""
        self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """Start it again."""
        self._paused += time.perf_counter() - self._paused_at


def host_memory() -> float | None:
    """Resident memory of this process in MiB; on macOS its maximum so far; None where it cannot be read."""
    status = Path("/proc/self/statm")
    if not status.is_file() and sys.platform != "darwin":
        return None
    import resource

    if status.is_file():
        return int(status.read_text().split()[1]) * resource.getpagesize() / MEBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE


def device_memory(device: torch.device) -> float | None:
    """The most MiB that tensors took on an accelerator since the last call; None on a CPU."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / MEBIBYTE
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    return torch.mps.current_allocated_memory() / MEBIBYTE if device.type == "mps" else None


def batch_length(batch: Any) -> int:
    """The number of samples: the length of its first tensor."""
    return next((len(x) if x.ndim else 1 for x in tree_leaves(batch) if isinstance(x, Tensor)), 0)
