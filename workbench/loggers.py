"""Where figures and images of a run go: a CSV always, Weights & Biases, TensorBoard as a choice."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from workbench.errors import UserError
from workbench.lightning_private import wandb_options
from workbench.run import Run

WandbMode = Literal["auto", "online", "offline", "off"]
WANDB_CLOUD = ("api.wandb.ai", "api.forge.coreweave.com")
"""One server under the names that older and newer versions of wandb have for it."""


class _AppendingWriter(ExperimentWriter):
    """Goes on with the metrics of a resumed run, which Lightning's own writer deletes.

    Args:
        log_dir: The run's folder.
        keep: Of the rows that are there, the first so many; what a run logged after its checkpoint it logs once more.
        before: Where the number is not known: rows of steps before this one; None for all.
    """

    def __init__(self, log_dir: str, keep: int | None = None, before: int | None = None) -> None:
        super().__init__(log_dir)
        self.written = 0
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            # Killed while it wrote, a run has left a last row without its end.
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        if keep is not None:
            rows = rows[:keep]
        elif before is not None:
            rows = [row for row in rows if int(float(row["step"] or 0)) < before]
        self.metrics_keys = list(rows[0]) if rows else []
        self.written = len(rows)
        if rows:
            self._write_rows(rows, self.metrics_keys)
        else:
            path.unlink()

    def save(self) -> None:
        """Write what is held back."""
        self.written += len(self.metrics)
        super().save()

    def write_down(self) -> int:
        """Write what is held back, and wait for the disk.

        Returns:
            The number of rows in the file.
        """
        self.save()
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        return self.written

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Add columns; Lightning's own way empties the file first, and a run that is killed then has lost it."""
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._write_rows(rows, fieldnames)

    def _write_rows(self, rows: list[dict[str, str]], fieldnames: list[str]) -> None:
        fresh = Path(self.metrics_file_path).with_suffix(".tmp")
        with fresh.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.metrics_file_path)

    def _check_log_dir_exists(self) -> None:
        pass


class MetricsCSV(CSVLogger):
    """``metrics.csv`` in the run's folder.

    Args:
        run: The run.
        keep: Of the rows that are there, the first so many; None for those before ``resume_step``.
        resume_step: ``global_step`` of the checkpoint that a resumed run goes on from; None for all.
    """

    def __init__(self, run: Run, keep: int | None = None, resume_step: int | None = None) -> None:
        super().__init__(run.root, name=run.name, version=run.version, flush_logs_every_n_steps=50)
        self._keep, self._resume_step = keep, resume_step

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _AppendingWriter(self.log_dir, self._keep, self._resume_step)
        return self._experiment

    def log_hyperparams(self, params: object = None) -> None:
        pass  # config.yaml holds them already

    def write_down(self) -> int | None:
        """Write what is held back: a run that is killed goes on from the checkpoint that is about to be written.

        Returns:
            The number of rows in the file; None on all processes but the first.
        """
        return self.experiment.write_down() if rank_zero_only.rank == 0 else None


def make_loggers(
    run: Run, wandb: WandbMode, tensorboard: bool, rows: int | None = None, resume_step: int | None = None
) -> list[Logger]:
    """Loggers of a run, the CSV first: Lightning takes the run's folder from the first one.

    Args:
        run: The run.
        wandb: Whether and how to log to W&B.
        tensorboard: Whether to write TensorBoard's files.
        rows: Rows of ``metrics.csv`` that are older than the checkpoint of a resumed run.
        resume_step: ``global_step`` of that checkpoint.

    Raises:
        UserError: If a logger's package is not installed.
    """
    loggers: list[Logger] = [MetricsCSV(run, rows, resume_step)]
    if (mode := _wandb_mode(wandb)) != "off":
        loggers.append(_wandb_logger(run, offline=mode == "offline"))
    if tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger

        try:
            loggers.append(
                TensorBoardLogger(
                    run.root, name=run.name, version=run.version, default_hp_metric=False, purge_step=resume_step
                )
            )
        except ModuleNotFoundError:
            raise UserError(
                "--tensorboard true needs the package tensorboard.\n"
                "Install it: pip install 'image-to-image-template[tensorboard]'."
            ) from None
    return loggers


def upload_command(run: Run) -> str | None:
    """The command that uploads a run which W&B kept offline; None if there is nothing to upload."""
    folders = sorted((run.folder / "wandb").glob("offline-run-*"))
    return shlex.join(["wandb", "sync", *map(str, folders)]) if folders else None


def finish_wandb() -> None:
    """Close the run of this process, if there is one: the next would be taken for a part of it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def _wandb_logger(run: Run, offline: bool) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    cache = Path(".cache/wandb").absolute()
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(variable, str(cache))  # else they land in the user's home
    if not _wandb_config().is_dir():  # one that is there names the user's own server
        os.environ.setdefault("WANDB_CONFIG_DIR", str(cache))
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")  # capturing the terminal breaks a live progress bar
    logger = WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "image-to-image"),
        name=f"{run.name}/{run.version}",
        # The same when resumed, so that the curves go on. W&B takes neither spaces nor /\\#?%: in it.
        id=re.sub(r"[^\w.-]", "-", f"{run.name}-{run.version}")[-128:],
        save_dir=run.folder,
        mode="offline" if offline else "online",
    )
    wandb_options(logger).pop("anonymous", None)  # wandb warns about the mere presence of this setting
    return logger


def _wandb_mode(wanted: WandbMode) -> str:
    if wanted == "online" and not _has_credentials():
        raise UserError(
            "--wandb online needs credentials of Weights & Biases, and there are none.\n"
            "Log in with `wandb login`, or take --wandb offline: the run can be uploaded later."
        )
    if wanted != "auto":
        return wanted
    if os.environ.get("WANDB_MODE") in ("disabled", "dryrun", "offline"):
        return "off" if os.environ["WANDB_MODE"] == "disabled" else "offline"
    return "online" if _has_credentials() else "offline"


def _has_credentials() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import netrc

    for name in (".netrc", "_netrc"):
        try:
            known = netrc.netrc(os.environ.get("NETRC") or Path.home() / name)
        except (OSError, netrc.NetrcParseError):
            continue
        if any(known.authenticators(host) for host in _wandb_hosts()):
            return True
    return False


def _wandb_config() -> Path:
    return Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")


def _wandb_hosts() -> tuple[str, ...]:
    """The server's name, with its port, as ``wandb login`` writes it into the netrc file."""
    from configparser import ConfigParser, Error
    from urllib.parse import urlsplit

    settings = ConfigParser()
    with contextlib.suppress(Error, OSError):
        settings.read(_wandb_config() / "settings")
    url = os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback="")
    host = urlsplit(url).netloc
    return (host,) if host and host not in WANDB_CLOUD else WANDB_CLOUD


def log_image(trainer: Trainer, key: str, path: Path) -> None:
    """Send an image file to those of the trainer's loggers that show images."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [str(path)])
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np
            from PIL import Image

            logger.experiment.add_image(key, np.asarray(Image.open(path)), trainer.global_step, dataformats="HWC")
