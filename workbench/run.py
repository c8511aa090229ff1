"""A run's own folder, ``runs/NAME/VERSION``, and where an earlier run is resumed."""

from __future__ import annotations

import os
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch

from workbench.checkpoint import PREVIOUS, flat_data, one_line, read_checkpoint
from workbench.distributed import RUN_VERSION, Launch, find_launch
from workbench.errors import UserError

_JOB = ".job"


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    root: Path  # of all runs
    name: str
    version: str  # YYYYMMDD-HHMMSS, with a number appended when two start in one second
    resumed: bool = False  # from a checkpoint in this folder
    first: bool = True  # whether this is rank 0, which writes

    @property
    def folder(self) -> Path:
        return self.root / self.name / self.version

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def checkpoints(self) -> list[Path]:
        """What it can be resumed from, the newest first."""
        last = self.last_checkpoint
        return [path for path in (last, last.with_name(PREVIOUS)) if path.is_file()]


def start_run(root: str | Path, name: str, kind: str = "", num_nodes: int = 1) -> Run:
    """Make the folder of a new run, one for all of its processes; ``kind`` marks what is no training run (``test``).

    A job that its launcher restarts (torchrun after a failure, SLURM after a requeue) continues in the folder it had.
    """
    root = Path(root)
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"The run's name {name!r} cannot be a folder's name.\nUse another: --name NAME.")
    launch = find_launch(num_nodes)
    if launch.inherited is not None:
        return Run(root, name, launch.inherited, first=False)
    version, _, resumed = launch.broadcast(lambda: _open_folder(root, name, kind, launch)).partition(" ")
    os.environ[RUN_VERSION] = version
    return Run(root, name, version, resumed=bool(resumed), first=launch.rank == 0)


def _open_folder(root: Path, name: str, kind: str, launch: Launch) -> str:
    """The folder's version, followed by ``resumed`` where it has a checkpoint to resume from."""
    if launch.job and launch.restarted and not kind:
        for path in sorted((root / name).glob(f"*/{_JOB}"), reverse=True):
            if not path.parent.is_symlink() and path.read_text(encoding="utf-8") == launch.job:
                run = Run(root, name, path.parent.name)
                return f"{run.version} resumed" if run.checkpoints else run.version
    stamp = time.strftime("%Y%m%d-%H%M%S") + (f"-{kind}" if kind else "")
    for number in count(1):
        run = Run(root, name, stamp if number == 1 else f"{stamp}-{number}")
        try:
            run.folder.mkdir(parents=True)
            break
        except OSError as error:
            if not run.folder.is_dir():
                reason = error.strerror or error
                way_out = "Use --name NAME or --runs_dir FOLDER."
                raise UserError(f"The run's folder {run.folder} cannot be made: {reason}.\n{way_out}") from None
    if launch.job:
        (run.folder / _JOB).write_text(launch.job, encoding="utf-8")
    return run.version


def find_run(root: str | Path, name: str, version: str) -> Run:
    """Find an earlier run to resume; ``version`` is ``latest`` or the name of a folder under ``runs/NAME``."""
    folder = Path(root) / name
    there = sorted(path.name for path in folder.glob("*") if path.is_dir() and not path.is_symlink())
    latest = folder / "latest"
    if version == "latest" and latest.exists():
        version = latest.readlink().name if latest.is_symlink() else latest.read_text(encoding="utf-8").strip()
    if version not in there:
        resumable = [known for known in there if Run(Path(root), name, known).checkpoints]
        known = f"There are: {', '.join(resumable[-5:])}." if resumable else f"{folder} holds no run with a checkpoint."
        raise UserError(
            f"There is no run {version!r} of the name {name!r} to resume.\n{known}\n"
            "Start a new run without --resume, or name the run: --name NAME --resume VERSION."
        )
    run = Run(Path(root), name, version, resumed=True, first=find_launch().rank == 0)
    if not run.checkpoints:
        raise UserError(
            f"The run {run.folder} was stopped before its first checkpoint; it cannot be resumed.\n"
            "Start a new run without --resume."
        )
    if not os.access(run.folder, os.W_OK):
        raise UserError(
            f"The run's folder {run.folder} cannot be written.\n"
            "Fix its permissions, or resume a copy of it: --runs_dir FOLDER."
        )
    os.environ[RUN_VERSION] = run.version
    return run


def point_latest_at(run: Run) -> None:
    """Let ``runs/NAME/latest`` lead to a run."""
    latest, fresh = run.folder.parent / "latest", run.folder.parent / f".latest-{os.getpid()}"
    try:
        fresh.symlink_to(run.version, target_is_directory=True)
    except OSError:  # Windows lets only some users make links: there, `latest` is a text file that names the folder
        fresh.write_text(run.version, encoding="utf-8")
    fresh.replace(latest)


class ResumePoint(NamedTuple):
    """A checkpoint, its ``global_step``, and how many rows of ``metrics.csv`` are older (None: unknown)."""

    path: Path
    step: int
    rows: int | None


def latest_valid_checkpoint(run: Run) -> ResumePoint:
    """The newest checkpoint that is not damaged; prints it where it is not the last one."""
    faults = []
    for path in run.checkpoints:
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch itself does not look at the checksums
                    raise ValueError("its checksum differs")
            content = torch.load(path, map_location="cpu", weights_only=True)
            found = ResumePoint(path, content["global_step"], content.get("exact_resume", {}).get("rows"))
        except Exception as error:  # the reader fails on damaged files in any way: IndexError, EOFError, ...
            faults.append(f"{path} cannot be read, it is damaged or cut short ({one_line(error, 120)}).")
            continue
        if faults and run.first:
            print("\n".join([*faults, f"Resuming from the previous one: {path}, step {found.step}."]), file=sys.stderr)
        return found
    raise UserError(
        "\n".join(faults) + "\nNo checkpoint of this run can be read, so it cannot be resumed. Start a new run, or "
        f"one from the best weights: --model.init_args.init_from {run.folder / 'checkpoints' / 'best.ckpt'}"
    )


def compare_configs(checkpoint: str, config: dict[str, Any], verbose: bool) -> None:
    """Print where a configuration differs from that of the checkpoint; refuse another optimizer or scheduler."""
    found = differences(read_checkpoint(checkpoint).config, flat_data(config))
    for difference in found:
        if re.match(r"model\.\S*(optimizer|scheduler)\S*class_path ", difference):
            raise UserError(
                f"A resumed run keeps its optimizer and scheduler: {difference}.\n"
                f"Start a new run from its weights instead: --model.init_args.init_from {checkpoint}"
            )
    if found and verbose:
        print("Differs from the checkpoint: " + ", ".join(found[:8]) + (" ..." if len(found) > 8 else ""))


def differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Keys of model and data whose values differ between two configurations, as ``data.batch_size 16 -> 8``."""
    before, after = (
        dict(leaf for name in ("model", "data") for leaf in _leaves(config.get(name), name)) for config in (saved, now)
    )
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [f"{key} {before.get(key)} -> {after.get(key)}" for key in keys]


def _leaves(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}")
    else:
        yield key, tree
