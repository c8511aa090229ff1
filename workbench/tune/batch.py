"""``tune-batch``: the batch size that the device is fast at, and the largest that fits, for any model.

    python -m project tune-batch --config configs/denoise.yaml

A few real training steps of a copy of the model are timed at batch sizes 1, 2, 4, ...; nothing is written.
"""

from __future__ import annotations

import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from rich.console import Console
from rich.table import Table
from torch.utils._pytree import tree_leaves

from workbench.console import silence_warnings
from workbench.errors import UserError, one_line
from workbench.findings.checks.trial import stop_schedulers
from workbench.main import PROGRAM
from workbench.parser import split_options
from workbench.signals import STOP
from workbench.tune.apply import yaml_number
from workbench.tune.steps import Task, build_task, option_parser, probe_optimizers, start_in_epoch

GROWTH = 0.1  # more samples per second for twice the batch, below which a larger one is not worth it
RAM_SHARE = 0.5  # of the free memory of the host that a batch may take
WARM_UP = 2  # steps that are not timed: caches, kernels and worker processes start in them
SECONDS = 20.0  # after which a size needs no further steps
OUT_OF_MEMORY = "out of memory"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Row:
    """What was measured at one batch size."""

    size: int
    seconds: float = 0.0  # a step, loading included as far as the loader is not ahead
    memory: float | None = None  # peak on a CUDA device, else of the process, in bytes; None where it is not known
    problem: str = ""  # why there is no measurement

    @property
    def speed(self) -> float:
        """Samples per second."""
        return self.size / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Result:
    """The rows, by size, and why no larger size was tried."""

    rows: list[Row]
    ended: str

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if not row.problem]

    @property
    def recommended(self) -> Row:
        """The smallest size beyond which no doubling, nor several, bring 10 % more samples per second each."""

        def is_enough(row: Row) -> bool:
            later = [other for other in self.measured if other.size > row.size]
            return all(other.speed < row.speed * (1 + GROWTH) ** math.log2(other.size / row.size) for other in later)

        return next(row for row in self.measured if is_enough(row))


def main(argv: list[str]) -> int:
    """Run ``tune-batch``."""
    silence_warnings()
    parser = option_parser(argv[0], "Find the batch size that the device is fast at, and the largest that fits.")
    parser.add_argument("--max", type=int, default=4096, help="largest batch size that is tried")
    parser.add_argument("--steps", type=int, default=5, help="timed steps at each size")
    options, words = split_options(parser, argv[1:])
    if options.max < 1 or options.steps < 1:
        raise UserError("--max and --steps must be at least 1.")
    with STOP.handled():
        task, _ = build_task(argv[0], words)
        given = batch_size_of(task)
        probe = probe_optimizers(task)
        with Console(stderr=True).status("") as status:
            result = find_batch_sizes(task, options.max, options.steps, probe.common or 0, status.update)
    _print(result, given, dict(zip(probe.networks, probe.configured, strict=True)), words)
    return 0


def _holders(task: Task) -> list[Any]:
    """What has a ``batch_size``: the data module, or the model that has the loaders, and its hyper-parameters."""
    owner = task.model if task.data is None else task.data
    return [owner] * hasattr(owner, "batch_size") + [owner.hparams] * ("batch_size" in owner.hparams)


def batch_size_of(task: Task) -> int:
    """The configured batch size; UserError where the data have none."""
    holders = _holders(task)
    if not holders:
        owner = type(task.model if task.data is None else task.data).__name__
        raise UserError(
            f"{owner} has no batch_size to vary. Give its constructor the argument batch_size, keep it as "
            "self.batch_size,\nand have train_dataloader() use that."
        )
    holder = holders[0]
    return int(holder["batch_size"] if isinstance(holder, dict) else holder.batch_size)


def _set_batch_size(task: Task, size: int) -> None:
    for holder in _holders(task):
        if isinstance(holder, dict):
            holder["batch_size"] = size
        else:
            holder.batch_size = size


def find_batch_sizes(
    task: Task, most: int, steps: int, epoch: int = 0, report: Callable[[str], None] = lambda text: None
) -> Result:
    """Measure at 1, 2, 4, ... until memory, the data or ``most`` end it; once between the last two if memory does.

    On a CPU it ends as well where two doublings in a row bring less than 10 % each, or where the next size would take
    more than half of the free memory: neither swapping nor the kernel's out-of-memory killer may be provoked.
    """
    rows: list[Row] = []
    size, ended = 1, f"--max is {most}"
    while size <= most:
        report(f"batch size {size}")
        timer = measure(task, size, steps, epoch)
        if timer.row is None:
            ended = f"the training split holds no two batches of {size}"
            break
        rows.append(timer.row)
        if timer.row.problem == OUT_OF_MEMORY:
            ended = f"{size} is {OUT_OF_MEMORY}"
            if size > 2:
                report(f"batch size {3 * size // 4}")
                between = measure(task, 3 * size // 4, steps, epoch).row
                rows[-1:-1] = [between] if between else []
            break
        if not timer.on_cuda and (reason := _reason_to_end([row for row in rows if not row.problem])):
            ended = reason
            break
        size *= 2
    if all(row.problem for row in rows):
        raise UserError(f"No batch size could be measured: {rows[0].problem if rows else ended}.")
    return Result(rows, ended)


def _reason_to_end(rows: list[Row]) -> str:
    """Why no larger batch is to be tried in the host's memory; empty where one may."""
    if len(rows) < 2:
        return ""
    growths = [later.speed / row.speed for row, later in pairwise(rows[-3:])]
    if len(growths) > 1 and max(growths) < 1 + GROWTH:
        return "samples per second stopped growing"
    before, last = rows[-2:]
    if before.memory and last.memory:
        each = (last.memory - before.memory) / (last.size - before.size)
        if each * last.size > RAM_SHARE * free_memory():
            return f"{2 * last.size} would take more than half of the free memory"
    return ""


def measure(task: Task, size: int, steps: int, epoch: int = 0) -> _Timer:
    """Time training steps at a batch size. Out of memory, and any ValueError of a single sample (batch norm raises
    one), is a row's problem; there is no row where the data have no two batches of that size."""
    timer, given, problem = _Timer(steps, size, epoch), batch_size_of(task), ""
    try:
        _set_batch_size(task, size)
        task.run(timer, accumulate_grad_batches=1, overfit_batches=0, limit_train_batches=None)
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) or is_oom_error(error):
            problem = OUT_OF_MEMORY
        elif size == 1 and isinstance(error, ValueError):
            problem = one_line(error, 80)
        else:
            raise
    finally:
        _set_batch_size(task, given)
    garbage_collection_cuda()  # after the except clause, whose error holds the tensors of the failed step
    if problem:
        timer.row = Row(size, problem=problem)
    elif timer.seconds:
        timer.row = Row(size, statistics.median(timer.seconds), timer.memory)
    return timer


@dataclass(eq=False)
class _Timer(Callback):
    """Times steps from the end of one batch to the end of the next."""

    steps: int
    size: int
    epoch: int
    row: Row | None = None  # the result
    seconds: list[float] = field(default_factory=list)
    memory: float | None = None
    device: torch.device | None = None  # None: training did not start
    _batches: int = 0

    @property
    def on_cuda(self) -> bool:
        return self.device is not None and self.device.type == "cuda"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        start_in_epoch(trainer, self.epoch)
        stop_schedulers(trainer)
        self.device = pl_module.device
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        self._deadline = time.perf_counter() + SECONDS
        trainer.should_stop |= trainer.num_training_batches < 2

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        found = next((len(x) for x in tree_leaves(batch) if isinstance(x, torch.Tensor) and x.ndim), self.size)
        if found > self.size or (found < self.size and self._batches < trainer.num_training_batches - 1):
            raise UserError(
                f"With batch_size {self.size} a batch has {found} samples: train_dataloader() does not use batch_size, "
                "or returns a loader that was made before."
            )
        self._whole = found == self.size

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        if not self.on_cuda:  # all activations are there
            self.memory = max(self.memory or 0.0, process_memory()) or None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)
            self.memory = torch.cuda.max_memory_allocated(self.device)
        now = time.perf_counter()
        self._batches += 1
        if self._batches > WARM_UP and self._whole:
            self.seconds.append(now - self._since)
        late = now > self._deadline and (self.seconds or self._batches > WARM_UP + self.steps)
        trainer.should_stop |= bool(late) or len(self.seconds) >= self.steps
        self._since = now


def process_memory() -> float:
    """Bytes of RAM that this process holds now; 0 where the system does not say."""
    path = Path("/proc/self/statm")
    if not path.is_file():
        return 0.0
    import resource

    return float(path.read_text().split()[1]) * resource.getpagesize()


def free_memory() -> float:
    """Bytes of RAM that are free, within the limit of a container; infinite where the system does not say."""
    free = float("inf")
    if sys.platform == "linux":
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = float(lines["MemAvailable"].split()[0]) * 1024
        limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            free = min(free, float(most) - float(used.read_text()))
    return free


def _print(result: Result, given: int, rates: dict[str, float], words: list[str]) -> None:
    best, largest = result.recommended, result.measured[-1]
    table = Table(title="training steps by batch size", title_justify="left")
    for heading in ("batch", "ms a step", "samples per second", "memory (MiB)"):
        table.add_column(heading, justify="right")
    for row in result.rows:
        memory = "" if row.memory is None else f"{row.memory / MEBIBYTE:,.0f}"
        values = (f"{1000 * row.seconds:.1f}", f"{row.speed:.1f}", memory) if not row.problem else ("failed",)
        table.add_row(str(row.size), *values, style="bold" if row is best else None)
    Console(soft_wrap=True, highlight=False).print(table)
    for row in result.rows:
        if row.problem:
            print(f"Batch {row.size:<8} {row.problem}")
    why = f"twice as many bring less than {GROWTH:.0%} more samples per second"
    print(f"Recommended    {best.size}: {'the fastest measured' if best is largest else why}; configured: {given}")
    print(f"Largest tried  {largest.size}: {result.ended}")
    if best.size != given:
        times = best.size / given
        scaled = [
            f"{name} {yaml_number(rate)} -> {yaml_number(rate * times**0.5)} or {yaml_number(rate * times)}"
            for name, rate in rates.items()
        ]
        print(f"Learning rate  {', '.join(scaled)}: by the square root of the batch (Adam) or in proportion (SGD).")
        command = f"python -m {PROGRAM.name} tune-lr {shlex.join(words)}"
        print(f"               A rule of thumb only. Measure it: {command} --data.batch_size {best.size}")
