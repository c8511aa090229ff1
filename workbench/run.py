"""A run's own folder, ``runs/NAME/VERSION``, and where an earlier run is resumed."""

from __future__ import annotations

import os
import re
import sys
import time
import zipfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from workbench.checkpoint import PREVIOUS
from workbench.distributed import RUN_VERSION, find_launch
from workbench.errors import UserError, one_line


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    root: Path  # of all runs
    name: str
    version: str  # YYYYMMDD-HHMMSS, with a number appended when two start in one second; or what its launcher restarts
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
    """Make the folder of a new run, one for all of its processes; ``kind`` marks what is no training run (``test``). A
    job that its launcher restarts (torchrun after a failure, SLURM after a requeue) continues in the folder it had."""
    root = Path(root)
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"The run's name {name!r} cannot be a folder's name.\nUse another: --name NAME.")
    launch = find_launch(num_nodes)
    if launch.inherited is not None:
        return Run(root, name, launch.inherited, first=False)
    version, _, resumed = launch.broadcast(lambda: _open_folder(root, name, kind, launch.job)).partition(" ")
    os.environ[RUN_VERSION] = version
    return Run(root, name, version, resumed=bool(resumed), first=launch.rank == 0)


def _open_folder(root: Path, name: str, kind: str, job: str | None) -> str:
    """The folder's version, followed by ``resumed`` where it has a checkpoint to resume from."""
    restarts = job is not None and not kind
    stamp = time.strftime("%Y%m%d-%H%M%S") + (f"-{kind}" if kind else "")
    stamp = re.sub(r"[^\w.-]", "-", job) if restarts else stamp
    for number in count(1):
        run = Run(root, name, stamp if number == 1 else f"{stamp}-{number}")
        try:
            run.folder.mkdir(parents=True, exist_ok=restarts)
            break
        except OSError as error:
            if not run.folder.is_dir():
                text = f"The run's folder {run.folder} cannot be made: {error.strerror or error}."
                raise UserError(f"{text}\nUse --name NAME or --runs_dir FOLDER.") from None
    return f"{run.version} resumed" if run.checkpoints else run.version


def find_run(root: str | Path, name: str, version: str) -> Run:
    """Find an earlier run to resume; ``version`` is ``latest`` or the name of a folder under ``runs/NAME``."""
    folder = Path(root) / name
    there = sorted(path.name for path in folder.glob("*") if path.is_dir() and not path.is_symlink())
    resumable = [known for known in there if Run(Path(root), name, known).checkpoints]
    latest, wanted = folder / "latest", version
    if version == "latest" and latest.exists():
        wanted = latest.readlink().name if latest.is_symlink() else latest.read_text(encoding="utf-8").strip()
    if wanted not in resumable:
        known = f"There are: {', '.join(resumable[-5:])}." if resumable else f"{folder} holds no run with a checkpoint."
        raise UserError(
            f"There is no run {version!r} of the name {name!r} with a checkpoint to resume from.\n{known}\n"
            "Start a new run without --resume, or name the run: --name NAME --resume VERSION."
        )
    run = Run(Path(root), name, wanted, resumed=True, first=find_launch().rank == 0)
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


def latest_valid_checkpoint(run: Run) -> tuple[Path, int, int | None]:
    """The newest checkpoint that is not damaged, its ``global_step``, and how many rows of ``metrics.csv`` are older
    (None: unknown); prints it where it is not the last one."""
    faults = []
    for path in run.checkpoints:
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch itself does not look at the checksums
                    raise ValueError("its checksum differs")
            content = torch.load(path, map_location="cpu", weights_only=True)
            step, rows = content["global_step"], content.get("exact_resume", {}).get("rows")
        except Exception as error:  # the reader fails on damaged files in any way: IndexError, EOFError, ...
            faults.append(f"{path} cannot be read, it is damaged or cut short ({one_line(error, 120)}).")
            continue
        if faults and run.first:
            print("\n".join([*faults, f"Resuming from the previous one: {path}, step {step}."]), file=sys.stderr)
        return path, step, rows
    raise UserError(
        "\n".join(faults) + "\nNo checkpoint of this run can be read, so it cannot be resumed. Start a new run, or "
        f"one from the best weights: --model.init_args.init_from {run.folder / 'checkpoints' / 'best.ckpt'}"
    )
