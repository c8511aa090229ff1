"""Where metrics and images of a run go: always a CSV, Weights & Biases, TensorBoard as a choice."""

from __future__ import annotations

import csv
import os
import re
import shlex
import sys
from configparser import ConfigParser, Error
from contextlib import suppress
from io import StringIO
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from workbench.checkpoint import atomic_write_text
from workbench.errors import UserError
from workbench.lightning_private import wandb_options
from workbench.run import Run

WandbMode = Literal["auto", "online", "offline", "off"]
WANDB_CLOUD = ("api.wandb.ai", "api.forge.coreweave.com")  # one server: the names in older and newer versions of wandb


class _AppendingWriter(ExperimentWriter):
    """Appends to the first ``keep`` rows of a resumed run (None: all), which Lightning's own writer deletes."""

    def __init__(self, log_dir: str, keep: int | None) -> None:
        super().__init__(log_dir)
        self.written = 0
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            # A run that was killed while writing left an incomplete last row.
            rows = [row for row in csv.DictReader(file) if None not in row.values()][:keep]
        self.metrics_keys = list(rows[0]) if rows else []
        self.written = len(rows)
        if rows:
            self._write_rows(rows, self.metrics_keys)
        else:
            path.unlink()

    def save(self) -> None:
        self.written += len(self.metrics)
        super().save()

    def sync(self) -> int:
        """Write what is buffered and wait for the disk; returns the number of rows in the file."""
        self.save()
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        return self.written

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Add columns atomically; Lightning's own way empties the file first, and a killed run would have lost it."""
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._write_rows(rows, fieldnames)

    def _write_rows(self, rows: list[dict[str, str]], fieldnames: list[str]) -> None:
        text = StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=fieldnames)
        writer.writeheader()
        writer.writerows(rows)
        atomic_write_text(Path(self.metrics_file_path), text.getvalue())

    def _check_log_dir_exists(self) -> None:
        pass


class MetricsCSV(CSVLogger):
    """``metrics.csv`` in the run's folder; of a resumed run's rows it keeps the first so many (None: all)."""

    def __init__(self, run: Run, keep: int | None = None) -> None:
        super().__init__(run.root, name=run.name, version=run.version, flush_logs_every_n_steps=50)
        self._keep = keep

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _AppendingWriter(self.log_dir, self._keep)
        return self._experiment

    def log_hyperparams(self, params: object = None) -> None:
        """Not here: ``config.yaml`` holds them already."""

    def write_down(self) -> int | None:
        """Write what is buffered, before a checkpoint is saved; the rows in the file, None on all ranks but 0."""
        return self.experiment.sync() if rank_zero_only.rank == 0 else None


def make_loggers(
    run: Run, wandb: WandbMode, tensorboard: bool, rows: int | None = None, resume_step: int | None = None
) -> list[Logger]:
    """Loggers of a run, the CSV first: Lightning takes the run's folder from the first one.

    A resumed run has ``rows`` in ``metrics.csv`` that are older than its checkpoint (None: all), at ``resume_step``.
    """
    loggers: list[Logger] = [MetricsCSV(run, rows)]
    if (mode := _wandb_mode(wandb)) != "off":
        loggers.append(_wandb_logger(run, mode))
    if tensorboard:
        options = {"name": run.name, "version": run.version, "default_hp_metric": False, "purge_step": resume_step}
        try:
            loggers.append(TensorBoardLogger(run.root, **options))
        except ModuleNotFoundError:
            raise UserError("--tensorboard true needs a package: pip install tensorboard") from None
    return loggers


def _wandb_mode(wanted: WandbMode) -> str:
    """online, offline or off. W&B itself would prompt without credentials, and `wandb.login` needs the network."""
    if wanted == "auto":
        modes = {"disabled": "off", "dryrun": "offline", "offline": "offline"}
        return modes.get(os.environ.get("WANDB_MODE", "")) or ("online" if _has_credentials() else "offline")
    if wanted == "online" and not _has_credentials():
        raise UserError(
            "--wandb online needs credentials of Weights & Biases, and there are none.\n"
            "Run `wandb login`, or use --wandb offline: the run can be uploaded later."
        )
    return wanted


def _has_credentials() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = ConfigParser()
    with suppress(Error, OSError):
        settings.read(_wandb_config() / "settings")
    url = os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback="")
    host = urlsplit(url).netloc  # with its port, as `wandb login` writes it into the netrc file
    hosts = (host,) if host and host not in WANDB_CLOUD else WANDB_CLOUD
    for name in (".netrc", "_netrc"):
        with suppress(OSError, NetrcParseError):
            known = netrc(os.environ.get("NETRC") or Path.home() / name)
            if any(known.authenticators(host) for host in hosts):
                return True
    return False


def _wandb_config() -> Path:
    return Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")


def _wandb_logger(run: Run, mode: str) -> Logger:
    cache = Path(".cache/wandb").absolute()
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(variable, str(cache))  # else they land in the user's home
    if not _wandb_config().is_dir():  # an existing one may name the user's own server
        os.environ.setdefault("WANDB_CONFIG_DIR", str(cache))
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")  # capturing the terminal breaks a live progress bar
    logger = WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "image-to-image"),
        name=f"{run.name}/{run.version}",
        # The same when resumed, so that the curves continue. W&B allows neither spaces nor /\\#?%: in it.
        id=re.sub(r"[^\w.-]", "-", f"{run.name}-{run.version}")[-128:],
        save_dir=run.folder,
        mode=mode,
    )
    wandb_options(logger).pop("anonymous", None)  # wandb warns about the mere presence of this setting
    return logger


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
            import numpy as np
            from PIL import Image

            logger.experiment.add_image(key, np.asarray(Image.open(path)), trainer.global_step, dataformats="HWC")
