"""Kill a small run at random moments, resume it each time, and compare its end with that of an undisturbed run.

    make soak                                                   50 kills of one process on the CPU
    make soak ARGS="--model gan"                                the same of a GAN
    make soak ARGS="--kills 5 --processes 2 --workers 2"        options: python scripts/soak.py --help

Compared are the best and the last checkpoint and the snapshots with all that is in them (weights, average, optimizers,
schedules, counters, callbacks, random states), ``metrics.csv``, ``measurements.csv``, the findings and the sample
images, to the last bit; exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

SCRIPTS = Path(__file__).parent
COMPARED = [f"checkpoints/{name}.ckpt" for name in ("best", "last", "snapshot-*")]
COMPARED += ["metrics.csv", "measurements.csv", "findings.jsonl", "samples/*.png"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kills", type=int, default=50, help="how often to kill [50]")
    add("--steps", type=int, default=1000, help="length of the run [1000]")
    add("--processes", type=int, default=1, help="processes that train [1]")
    add("--workers", type=int, default=0, help="processes that load images [0]")
    add("--seed", type=int, default=0, help="of the moments [0]")
    add("--model", choices=["unet", "gan"], default="unet", help="what is trained [unet]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        print(f"A run of {options.steps} steps in {folder}, undisturbed ...", flush=True)
        finish(start(folder, "undisturbed", options, resume=False))
        print(f"The same, killed {options.kills} times ...", flush=True)
        losses = kill_and_resume(folder, options)
        differences = compare(folder / "runs" / "undisturbed" / "latest", folder / "runs" / "killed" / "latest")
    if losses:
        print(f"Lost at a kill: {statistics.median(losses):.0f} steps in the median, {max(losses)} at most.")
    print("\n".join(differences) or "The end is identical, bit by bit.")
    return 1 if differences else 0


def start(folder: Path, name: str, options: argparse.Namespace, resume: bool) -> subprocess.Popen:
    words = [sys.executable, "-m", "project", "fit", "--name", name, "--wandb=off"]
    words += [f"--trainer.max_steps={options.steps}", f"--trainer.devices={options.processes}"]
    if options.processes > 1:
        words.append("--trainer.strategy=ddp")
    if resume:
        words += ["--resume", "latest"]
    else:
        words += ["--config", SCRIPTS / "soak.yaml", "--config", SCRIPTS / f"soak_{options.model}.yaml"]
        words.append(f"--data.num_workers={options.workers}")
        if options.model == "gan":
            third = max(1, options.steps // 20 // 3)  # epochs, of 20 steps
            words += [f"--model.init_args.{stage}_epochs={third}" for stage in ("generator", "critic")]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True, **quiet)


def finish(process: subprocess.Popen, killed: bool = False) -> None:
    _, errors = process.communicate()
    if process.returncode and not killed:
        sys.exit(f"The run failed:\n{errors}")


def kill_and_resume(folder: Path, options: argparse.Namespace) -> list[int]:
    """Run, kill and resume until it was killed often enough, then run to the end.

    Every fourth kill comes at any moment of the start, the others a moment after a random step of what is left.

    Returns:
        Steps that were lost at each kill that came after the first checkpoint.
    """
    moments, latest = random.Random(options.seed), folder / "runs" / "killed" / "latest"
    losses: list[int] = []
    for kill in range(1, options.kills + 1):
        process = start(folder, "killed", options, resume=bool(list(latest.glob("checkpoints/*.ckpt"))))
        if kill % 4:
            saved = steps_saved(latest) or 0
            share = 2 * (options.steps - saved) / (options.kills - kill + 2)
            wait_for_step(process, latest, saved + int(moments.uniform(0, share)))
            time.sleep(moments.uniform(0, 0.5))
        else:
            time.sleep(moments.uniform(0, 8))
        reached = steps_reached(latest)
        running = process.poll() is None
        if running:
            os.killpg(process.pid, signal.SIGKILL)
        finish(process, killed=running)
        if (saved := steps_saved(latest)) is not None:
            losses.append(max(0, reached - saved))
        how = f"killed at step {reached}" if running else "had ended"
        print(f"  {kill:3d}: {how}, resumes from {saved or 'the start'}", flush=True)
    finish(start(folder, "killed", options, resume=bool(losses)))
    return losses


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    """Wait until this start of the run has written a metric or a checkpoint and reached a step, or has ended."""
    begin = time.time()
    while process.poll() is None:
        for path in (run / "metrics.csv", run / "checkpoints" / "last.ckpt"):
            if path.is_file() and path.stat().st_mtime > begin and steps_reached(run) >= step:
                return
        time.sleep(0.05)


def steps_reached(run: Path) -> int:
    """The last step in ``metrics.csv``, as far as it was written."""
    try:
        with (run / "metrics.csv").open(newline="") as file:
            return 1 + max(int(float(row["step"])) for row in csv.DictReader(file) if row.get("step"))
    except (OSError, ValueError):
        return 0


def steps_saved(run: Path) -> int | None:
    for name in ("last", "previous"):
        try:
            return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True, mmap=True)["global_step"]
        except (OSError, RuntimeError, EOFError):
            continue
    return None


def compare(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs; a line for each."""
    lines = []
    for pattern in COMPARED:
        names, others = ({path.relative_to(run) for path in run.glob(pattern)} for run in (one, other))
        lines += [f"{name} is in one run only" for name in sorted(names ^ others)]
        if "*" not in pattern and not names | others:
            lines.append(f"neither run has {pattern}")
        for name in sorted(names & others):
            if name.suffix == ".ckpt":
                first, second = content(one / name), content(other / name)
                places = [place for place in first | second if first.get(place) != second.get(place)]
                lines += [f"{name.name}: {place}" for place in places]
            elif (one / name).read_bytes() != (other / name).read_bytes():
                lines.append(f"{name.name} differs")
    return lines


def content(path: Path) -> dict[str, str]:
    """All of a checkpoint but what may differ: the run's name, and how often a validation was begun."""
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    del checkpoint["config"]
    if "loops" in checkpoint:  # a snapshot has none
        del checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    return flatten(checkpoint)


def flatten(value: Any, where: str = "") -> dict[str, str]:
    """Place in a nested structure -> the value there, with its type and to the last bit."""
    if isinstance(value, torch.Tensor):
        return {where: f"{value.dtype} {tuple(value.shape)} {value.tolist()}"}
    if not isinstance(value, dict | list | tuple):
        return {where: repr(value)}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    flat = [flatten(part, f"{where}.{key}") for key, part in parts]
    return {where: f"{type(value).__name__} of {len(value)}"} | {k: v for part in flat for k, v in part.items()}


if __name__ == "__main__":
    sys.exit(main())
