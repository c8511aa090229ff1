"""Where metrics and images of a run go: always a CSV, Weights & Biases, TensorBoard as a choice."""

from __future__ import annotations

import csv
import os
import re
import shlex
import sys
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from workbench.checkpoint import atomic_write_text
from workbench.errors import UserError
from workbench.lightning_private import wandb_options
from workbench.run import Run

WandbMode = Literal["auto", "online", "offline", "off"]


class MetricsCSV(CSVLogger):
    """``metrics.csv`` in the run's folder; of a resumed run's rows it keeps the first so many (None: all). Lightning's
    own writer deletes the rows of a resumed run, and empties the file before it adds a column."""

    experiment = None  # that writer, which Lightning asks for at the start of a run

    def __init__(self, run: Run, keep: int | None = None) -> None:
        super().__init__(run.root, name=run.name, version=run.version)
        self._path, self._keep = run.folder / "metrics.csv", keep
        self._columns: list[str] = []  # none until the file is read
        self._buffer: list[dict[str, Any]] = []
        self._written = 0

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self._buffer.append({"step": step, **metrics})

    def log_hyperparams(self, params: object = None) -> None:
        """Not here: ``config.yaml`` holds them already."""

    @rank_zero_only
    def save(self) -> None:
        if self._buffer:  # else an error before the first step changes nothing
            self._write()

    def finalize(self, status: str) -> None:
        self.save()

    def write_down(self) -> int | None:
        """Write what is buffered, before a checkpoint is saved; the rows in the file, None on all ranks but 0."""
        if rank_zero_only.rank > 0:
            return None
        self._write()
        if self._written:
            with self._path.open("r+b") as file:
                os.fsync(file.fileno())
        return self._written

    def _write(self) -> None:
        """Append what is buffered; at first, and where there is a new column, write the whole file atomically."""
        columns = set(self._columns).union(*self._buffer)
        if self._columns and columns == set(self._columns):
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(self._buffer)
            self._written += len(self._buffer)
        else:
            rows = [*self._read(), *self._buffer]
            self._columns, self._written = sorted(columns.union(*rows)), len(rows)
            text = StringIO(newline="")
            writer = csv.DictWriter(text, self._columns)
            writer.writeheader()
            writer.writerows(rows)
            if rows:
                atomic_write_text(self._path, text.getvalue())
            else:
                self._path.unlink(missing_ok=True)
        self._buffer = []

    def _read(self) -> list[dict[str, str]]:
        """The rows to keep; a run that was killed while writing left an incomplete last one."""
        keep, self._keep = self._keep, None
        if not self._path.is_file():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        return rows[:keep]


def make_loggers(
    run: Run, wandb: WandbMode, tensorboard: bool, rows: int | None = None, resume_step: int | None = None
) -> list[Logger]:
    """Loggers of a run, the CSV first: Lightning takes the run's folder from the first one.

    A resumed run has ``rows`` in ``metrics.csv`` that are older than its checkpoint (None: all), at ``resume_step``.
    """
    loggers: list[Logger] = [MetricsCSV(run, rows)]
    if (mode := _wandb_mode(wandb)) != "off":
        loggers.append(
            WandbLogger(
                project=os.environ.get("WANDB_PROJECT", "image-to-image"),
                name=f"{run.name}/{run.version}",
                # The same when resumed, so that the curves continue. W&B allows neither spaces nor /\\#?%: in it.
                id=re.sub(r"[^\w.-]", "-", f"{run.name}-{run.version}")[-128:],
                save_dir=run.folder,
                mode=mode,
            )
        )
        wandb_options(loggers[-1]).pop("anonymous", None)  # wandb warns about the mere presence of this setting
    if tensorboard:
        options = {"version": run.version, "default_hp_metric": False, "purge_step": resume_step}
        try:
            loggers.append(TensorBoardLogger(run.root, run.name, **options))
        except ModuleNotFoundError:
            raise UserError("--tensorboard true needs a package: pip install tensorboard") from None
    return loggers


def _wandb_mode(wanted: WandbMode) -> str:
    """online, offline or off; sets the environment in which W&B starts without prompting."""
    if wanted == "auto":
        wanted = {"disabled": "off", "offline": "offline"}.get(os.environ.get("WANDB_MODE", ""), "auto")
    if wanted == "off":
        return wanted
    cache = str(Path(".cache/wandb").absolute())
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(variable, cache)  # else they land in the user's home
    if not Path.home().joinpath(".config", "wandb").is_dir():  # an existing one may name the user's own server
        os.environ.setdefault("WANDB_CONFIG_DIR", cache)
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")  # capturing the terminal breaks a live progress bar
    if wanted == "offline":
        return wanted
    import wandb

    if wandb.login(verify=False, prompt=False):  # needs no network
        return "online"
    if wanted == "online":
        raise UserError(
            "--wandb online needs credentials of Weights & Biases, and there are none, or WANDB_MODE is offline.\n"
            "Run `wandb login`, or use --wandb offline: the run can be uploaded later."
        )
    return "offline"


def upload_command(run: Run) -> str | None:
    """The command that uploads a run which W&B kept offline; None if there is nothing to upload."""
    folders = sorted((run.folder / "wandb").glob("offline-run-*"))
    return shlex.join(["wandb", "sync", *map(str, folders)]) if folders else None


def finish_wandb() -> None:
    """Close the run of this process, if there is one: the next would be logged into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def log_image(trainer: Trainer, key: str, path: Path) -> None:
    """Send an image file to those of the trainer's loggers that show images."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [str(path)])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, np.asarray(Image.open(path)), trainer.global_step, dataformats="HWC")
