"""A run's own folder, ``runs/NAME/VERSION``, and how to find an earlier one again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import UserError
from workbench.launch import INHERITED, Launch, find_launch

PREVIOUS = "previous.ckpt"
_JOB = ".job"


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        root: The folder of all runs (``runs``).
        name: What was run, the config's file name by default.
        version: When: ``YYYYMMDD-HHMMSS``, with a number behind it when two start in one second.
        resumed: Whether the run goes on in a folder that was there before, from a checkpoint in it.
        first: Whether this is the first of the run's processes, the one that writes.
    """

    root: Path
    name: str
    version: str
    resumed: bool = False
    first: bool = True

    @property
    def folder(self) -> Path:
        return self.root / self.name / self.version

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def checkpoints(self) -> list[Path]:
        """What there is to go on from, the newest first."""
        last = self.last_checkpoint
        return [path for path in (last, last.with_name(PREVIOUS)) if path.is_file()]


def start_run(root: str | Path, name: str, kind: str = "", num_nodes: int = 1) -> Run:
    """Make the folder of a new run, one for all of its processes.

    A job that is started again by what has started it (torchrun after a failure, SLURM after a requeue) goes on in the
    folder that it had.

    Args:
        root: The folder of all runs.
        name: The experiment's name; becomes a folder's name.
        kind: Added to the version of what is not a training run (``test``).
        num_nodes: Number of machines.

    Raises:
        UserError: If the folder cannot be made.
    """
    root = Path(root)
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"The run's name {name!r} cannot be a folder's name.\nGive another with --name NAME.")
    launch = find_launch(num_nodes)
    if launch.inherited is not None:
        return Run(root, name, launch.inherited, first=False)
    told = launch.share(lambda: _open_folder(root, name, kind, launch))
    version, _, resumed = told.partition(" ")
    os.environ[INHERITED] = version
    return Run(root, name, version, resumed=bool(resumed), first=launch.rank == 0)


def _open_folder(root: Path, name: str, kind: str, launch: Launch) -> str:
    """The version of the folder, and behind it the word ``resumed`` where there is a checkpoint to go on from."""
    if launch.job and launch.again and not kind:
        for path in sorted((root / name).glob(f"*/{_JOB}"), reverse=True):
            if not path.parent.is_symlink() and path.read_text(encoding="utf-8") == launch.job:  # by its own name
                run = Run(root, name, path.parent.name)
                return f"{run.version} resumed" if run.checkpoints else run.version
    run = _make_folder(root, name, kind)
    if launch.job:
        (run.folder / _JOB).write_text(launch.job, encoding="utf-8")
    return run.version


def _make_folder(root: Path, name: str, kind: str) -> Run:
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
            return run
    raise UserError(f"{root / name} holds too many runs of this second.\nGive --name NAME or --runs_dir FOLDER.")


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
    resumable = [name for name in there if Run(Path(root), folder.name, name).checkpoints]
    if version == "latest":
        version = _read_latest(folder) or ""
    if not version or version not in there:
        known = f"There are: {', '.join(resumable[-5:])}." if resumable else f"{folder} holds no run with a checkpoint."
        raise UserError(
            f"There is no run {version or 'latest'!r} of the name {name!r} to resume.\n{known}\n"
            "Start anew without --resume, or name the run: --name NAME --resume VERSION."
        )
    run = Run(Path(root), name, version, resumed=True, first=find_launch().rank == 0)
    if not run.checkpoints:
        raise UserError(
            f"The run {run.folder} was stopped before its first checkpoint; nothing can be resumed.\n"
            "Start anew without --resume."
        )
    try:
        probe = run.folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"The run's folder {run.folder} cannot be written: {error.strerror}.\n"
            "Mend its permissions, or go on from a copy of it: --runs_dir FOLDER."
        ) from None
    os.environ[INHERITED] = run.version
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
