"""A run's own folder, ``runs/NAME/VERSION``, and how to find an earlier one again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from project.errors import UserError

# Lightning's ddp starts the other ranks by running the same command again: they inherit the folder's name from here.
_INHERITED = "PROJECT_RUN_VERSION"


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        root: The folder of all runs (``runs``).
        name: What was run, the config's file name by default.
        version: When: ``YYYYMMDD-HHMMSS``, with a number behind it when two start in one second.
        resumed: Whether the run goes on in a folder that was there before.
    """

    root: Path
    name: str
    version: str
    resumed: bool = False

    @property
    def folder(self) -> Path:
        return self.root / self.name / self.version

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


def start_run(root: str | Path, name: str, kind: str = "") -> Run:
    """Make the folder of a new run.

    Args:
        root: The folder of all runs.
        name: The experiment's name; becomes a folder's name.
        kind: Added to the version of what is not a training run (``test``).

    Raises:
        UserError: If the folder cannot be made.
    """
    root = Path(root)
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"The run's name {name!r} cannot be a folder's name.\nGive another with --name NAME.")
    if "LOCAL_RANK" in os.environ and (version := os.environ.get(_INHERITED)):
        return Run(root, name, version)
    stamp = time.strftime("%Y%m%d-%H%M%S") + (f"-{kind}" if kind else "")
    for number in range(1, 1000):
        run = Run(root, name, stamp if number == 1 else f"{stamp}-{number}")
        try:
            run.folder.mkdir(parents=True)
        except FileExistsError:
            if not run.folder.is_dir():
                raise UserError(
                    f"{run.folder.parent} is in the way: it is not a folder.\n"
                    "Remove it, or give --name NAME or --runs_dir FOLDER."
                ) from None
        except OSError as error:
            raise UserError(
                f"The run's folder {run.folder} cannot be made: {error.strerror}.\n"
                "Give a folder that can be written: --runs_dir FOLDER."
            ) from None
        else:
            break
    os.environ[_INHERITED] = run.version
    return run


def find_run(root: str | Path, name: str, version: str) -> Run:
    """Find an earlier run that has a checkpoint to go on from.

    Args:
        root: The folder of all runs.
        name: The experiment's name.
        version: ``latest``, or the name of a folder under ``runs/NAME``.

    Raises:
        UserError: If there is no such run, or it never saved a checkpoint.
    """
    folder = Path(root) / name
    there = sorted(
        path.name for path in folder.glob("*") if path.is_dir() and not path.is_symlink() and path.name != "latest"
    )
    resumable = [name for name in there if Run(Path(root), folder.name, name).last_checkpoint.is_file()]
    if version == "latest":
        version = _read_latest(folder) or ""
    if not version or version not in there:
        known = f"There are: {', '.join(resumable[-5:])}." if resumable else f"{folder} holds no run with a checkpoint."
        raise UserError(
            f"There is no run {version or 'latest'!r} of the name {name!r} to resume.\n{known}\n"
            "Start anew without --resume, or name the run: --name NAME --resume VERSION."
        )
    run = Run(Path(root), name, version, resumed=True)
    if not run.last_checkpoint.is_file():
        raise UserError(
            f"The run {run.folder} was stopped before its first checkpoint; nothing can be resumed.\n"
            "Start anew without --resume."
        )
    os.environ[_INHERITED] = run.version
    return run


def point_latest_at(run: Run) -> None:
    """Let ``runs/NAME/latest`` lead to a run."""
    latest, fresh = run.folder.parent / "latest", run.folder.parent / f".latest-{os.getpid()}"
    try:
        fresh.symlink_to(run.version, target_is_directory=True)
    except OSError:  # Windows lets only some users make links: there, `latest` is a text file that names the folder
        fresh.write_text(run.version, encoding="utf-8")
    fresh.replace(latest)


def _read_latest(folder: Path) -> str | None:
    latest = folder / "latest"
    if latest.is_symlink():
        return latest.readlink().name
    return latest.read_text(encoding="utf-8").strip() if latest.is_file() else None
