"""Samples a second, and memory of host and device, over the run."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from workbench.lightning_private import steps_done
from workbench.watch.recorder import THROUGHPUT, Recorder

MEBIBYTE = 2**20


class Throughput:
    """Logs, whenever Lightning logs, ``throughput/samples_per_second`` (samples of all processes, validations left
    out), and the most memory so far: ``memory/host_mib`` (of the main process, without its data workers) and
    ``memory/device_mib`` (of tensors on a CUDA device).

    They go into ``throughput.csv``, Weights & Biases and TensorBoard; not into metrics.csv, which is the same to the
    last digit whenever the run is repeated.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.restart()

    def restart(self) -> None:
        """Start the clock anew, as after a validation."""
        self._since, self._samples = time.perf_counter(), 0

    def count(self, batch: Any) -> None:
        """Count the samples of a batch: the length of its first tensor."""
        self._samples += next((len(x) for x in tree_leaves(batch) if isinstance(x, Tensor) and x.ndim), 0)

    def log(self, device: torch.device) -> None:
        """Log; right after values were fetched from the device, so that the time is that of whole steps."""
        trainer, seconds = self.recorder.trainer, time.perf_counter() - self._since
        if self._samples and seconds > 0 and trainer.is_global_zero:
            values = {"throughput/samples_per_second": self._samples * trainer.world_size / seconds}
            if sys.platform != "win32":
                import resource

                unit = 1 if sys.platform == "darwin" else 1024
                values["memory/host_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE
            if device.type == "cuda":
                values["memory/device_mib"] = torch.cuda.max_memory_allocated(device) / MEBIBYTE
            row = [str(steps_done(trainer)), *(f"{value:.1f}" for value in values.values())]
            header = ["step", *(name.rpartition("/")[2] for name in values)]
            self.recorder.append(THROUGHPUT, [",".join(row)], ",".join(header))
            self.recorder.log(values, to_csv=False)
        self.restart()
