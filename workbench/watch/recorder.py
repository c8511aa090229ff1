"""Measurements: kept on the device, fetched together, and handed to the loggers, the run's files and the rules."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from workbench.checkpoint import atomic_write_text
from workbench.findings import Activation, History, ModelInfo, Series, Setting
from workbench.lightning_private import steps_done

FINDINGS, LAYERS, THROUGHPUT = "findings.jsonl", "measurements.csv", "throughput.csv"
IN_HISTOGRAM = 20_000  # values of a tensor


class Recorder:
    """The measurements of one run. ``put`` never waits for the device; ``flush`` fetches everything in one transfer.

    A resumed run cuts off the lines of its files that were written after its checkpoint: it writes them once more.
    """

    def __init__(self, trainer: Trainer, model: ModelInfo, state: dict[str, Any] | None = None) -> None:
        self.trainer = trainer
        self.history = History(model)
        self.shows_histograms = any(isinstance(x, WandbLogger | TensorBoardLogger) for x in trainer.loggers)
        self._pending: list[tuple[str | None, Sequence[str], int, Tensor, bool]] = []
        self._unlogged: dict[str, float] = {}
        self.histograms: dict[str, Tensor] = {}  # what `for_histogram` returned, for the next `write_layers`
        self.lines: dict[str, int] = {}  # number of lines in each file
        if state is not None:
            unpack(self.history, state["history"])
            self._unlogged, self.lines = dict(state["unlogged"]), dict(state["lines"])
        folder = trainer.log_dir if trainer.loggers and not trainer.fast_dev_run else None  # all ranks have to ask
        # None where nothing is to be written: without a logger, and on all ranks but the first.
        self.folder = Path(folder) if folder is not None and trainer.is_global_zero else None
        for name in (FINDINGS, LAYERS, THROUGHPUT) if self.folder is not None else ():
            if (path := self.folder / name).is_file():
                kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[: self.lines.get(name, 0)]
                atomic_write_text(path, "".join(kept))
                self.lines[name] = len(kept)

    def append(self, name: str, lines: list[str], header: str | None = None) -> None:
        """Add lines, given without their ends, to a file of the run; creates it, with its header, even without any."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if header is not None and not self.lines.get(name):
            lines = [header, *lines]
        with (self.folder / name).open("a", encoding="utf-8", newline="") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.lines[name] = self.lines.get(name, 0) + len(lines)

    def add(self, name: str, value: float, step: int) -> None:
        """Keep a scalar that is at hand already, to be logged with the others."""
        self.history.add(name, step, value)
        self._unlogged[name] = value

    def put(self, names: Sequence[str], values: Tensor, step: int, table: str | None = None, log: bool = False) -> None:
        """Keep scalars, or rows of a table, (len(names),) or (), measured after ``step`` optimizer steps; with ``log``
        loggers get them as well."""
        self._pending.append((table, names, step, values.detach().reshape(-1), log))

    def flush(self, log: bool = True) -> None:
        """Fetch everything into the history, and log the newest value of each name, now or at the next flush."""
        pending, self._pending = self._pending, []
        device = next((entry[3].device for entry in pending if entry[3].device.type != "cpu"), "cpu")
        fetched = iter(torch.cat([entry[3].float().to(device) for entry in pending]).tolist() if pending else ())
        for table, names, step, _, logged in pending:
            values = [next(fetched) for _ in names]
            if table == "gradient" and self.history.nonfinite_gradient is None:
                # A backward pass starts at the last layer: there it went wrong first.
                bad = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
                self.history.nonfinite_gradient = (step, bad[-1]) if bad else None
            for name, value in zip(names, values, strict=True):
                self.history.add(name, step, value, table)
                if logged:
                    self._unlogged[name] = value
        if log:
            newest, self._unlogged = self._unlogged, {}
            self.log(newest)

    def log(self, values: dict[str, Any], to_csv: bool = True) -> None:
        """Send values to the loggers, at the step that the loss is logged at; in a CSV each name is a column."""
        for logger in self.trainer.loggers if values and self.trainer.is_global_zero else ():
            if to_csv or not isinstance(logger, CSVLogger):
                logger.log_metrics(values, step=steps_done(self.trainer))

    def _log_histograms(self) -> None:
        fetched = {name: tensor.cpu().numpy() for name, tensor in self.histograms.items()}
        self.histograms = {}
        for logger in self.trainer.loggers if fetched else ():
            if isinstance(logger, WandbLogger):
                import wandb

                shown = {name: wandb.Histogram(found) for name, found in fetched.items()}
                logger.log_metrics(shown, step=steps_done(self.trainer))
            elif isinstance(logger, TensorBoardLogger):
                for name, found in fetched.items():
                    logger.experiment.add_histogram(name, found, steps_done(self.trainer))

    def write_layers(self, values: dict[str, dict[str, float]], charts: tuple[str, ...]) -> None:
        """Write values by measure and layer into ``measurements.csv``; send some, and histograms, to the loggers."""
        step, text = steps_done(self.trainer), io.StringIO()
        rows = [(m, layer, value) for m, found in values.items() for layer, value in found.items()]
        csv.writer(text, lineterminator="\n").writerows((step, m, layer, f"{value:.6g}") for m, layer, value in rows)
        self.append(LAYERS, text.getvalue().splitlines(), "step,measure,layer,value")
        self.log({f"{m}/{layer}": value for m, layer, value in rows if m in charts}, to_csv=False)
        self._log_histograms()

    def state_dict(self) -> dict[str, Any]:
        self.flush(log=False)  # so that a run's logs do not show where it was saved
        return {"history": pack(self.history), "unlogged": dict(self._unlogged), "lines": dict(self.lines)}


def sample(values: Tensor, count: int) -> Tensor:
    """About ``count`` values, evenly spread over a tensor's memory, as a view of it; all where there are no more."""
    values = values.detach()
    every = max(values.numel() // count, 1)
    while math.gcd(every, 2 * 3 * 5 * 7) > 1:  # else it could meet the same tap of each kernel alone
        every -= 1
    dense = values.layout is torch.strided and (
        values.is_contiguous() or (values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last))
    )
    if every < 2 or not dense:
        return values
    # Not flatten(): in channels_last order it would copy the whole tensor.
    return torch.as_strided(values, (values.numel() // every,), (every,), values.storage_offset())


def for_histogram(values: Tensor) -> Tensor:
    return torch.nan_to_num(sample(values, IN_HISTOGRAM).float(), nan=0.0, posinf=0.0, neginf=0.0)


def pack(history: History) -> str:
    """A history, and what was learned of the model, as JSON: at most 30 KB a scalar, 4 KB a layer of a table."""
    learned = {name: getattr(history.model, name) for name in ("pretrained", "activations", "penalties")}
    learned["order"] = list(history.model.parameters)
    return json.dumps({**vars(history), "model": learned, "cache": None}, default=vars, separators=(",", ":"))


def unpack(history: History, text: str) -> None:
    """Put everything back; a setting that has been changed since then stays changed."""
    state, model = json.loads(text), history.model
    history.scalars = {name: Series(**series) for name, series in state["scalars"].items()}
    history.tables = {t: {name: Series(**s) for name, s in rows.items()} for t, rows in state["tables"].items()}
    history.step, history.first = state["step"], state["first"]
    for name in ("nonfinite", "nonfinite_gradient"):
        setattr(history, name, state[name] and tuple(state[name]))
    learned = state["model"]
    model.pretrained = learned["pretrained"]
    known = [name for name in learned["order"] if name in model.parameters]
    model.parameters = {name: model.parameters[name] for name in [*known, *model.parameters]}
    model.activations = {name: Activation(**place) for name, place in learned["activations"].items()}
    model.penalties = {name: Setting(**found) for name, found in learned["penalties"].items()} | model.penalties
