"""Kill a small run at random moments, resume it each time, and compare its end with that of a run that nobody disturbs.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
EPOCH = 18
"""Steps of an epoch: 8 of the 12 images, each 9 times, in batches of 4."""


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(options.keep or name)
        folder.mkdir(parents=True, exist_ok=True)
        config = options.config or write_config(folder, options)
        print(f"A run of {options.steps} steps in {folder}, undisturbed ...", flush=True)
        begin = time.monotonic()
        run_once(folder, config, "undisturbed", options, resume=False)
        print(f"took {time.monotonic() - begin:.0f} s. Now killed {options.kills} times ...", flush=True)
        losses = torment(folder, config, options)
        runs = folder / "runs"
        faults = compare(runs / "undisturbed" / "latest", runs / "killed" / "latest")
    if losses:
        print(
            f"Lost at a kill: {statistics.median(losses):.0f} steps in the middle, {max(losses)} at most "
            f"(a checkpoint at least every {options.every} steps)."
        )
    print("\n".join(faults) if faults else "The end is identical, bit by bit.")
    return 1 if faults else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kills", type=int, default=50, help="how often to kill [50]")
    add("--steps", type=int, default=1000, help="length of the run [1000]")
    add("--every", type=int, default=7, help="steps between two checkpoints [7]")
    add("--processes", type=int, default=1, help="processes that train [1]")
    add("--workers", type=int, default=0, help="processes that load images [0]")
    add("--signal", choices=["KILL", "TERM", "INT"], default="KILL", help="how to end it [KILL]")
    add("--seed", type=int, default=0, help="of the moments [0]")
    add("--model", choices=["unet", "gan"], default="unet", help="what is trained [unet]")
    add("--config", type=Path, help="a configuration of your own; max_steps and such are set by this")
    add("--keep", type=Path, help="work in this folder, and leave it")
    return parser.parse_args()


def build(class_path: str, **arguments: Any) -> dict[str, Any]:
    """An object in a configuration."""
    return {"class_path": class_path, "init_args": arguments}


def write_config(folder: Path, options: argparse.Namespace) -> Path:
    """A run that has everything that could go wrong: noise, EMA, schedules, clipping, validations in mid-epoch."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    y, x = np.mgrid[:41, :52] / 8
    for number in range(12):
        waves = [np.sin(x * (1 + number / 7) + c) * np.cos(y * (1 + c / 3) + number) for c in range(3)]
        Image.fromarray(np.uint8(127.5 + 120 * np.stack(waves, axis=-1))).save(images / f"{number:03d}.png")
    unet = build("project.networks.UNet", widths=[8, 12], norm="batch", dropout=0.1)
    adam = build("torch.optim.Adam", lr=0.003)
    cosine = build("project.models.WarmupCosine", cycles=4)
    third = max(1, options.steps // (3 * EPOCH))
    models = {
        "unet": build("project.models.ImageRestorer", network=unet, optimizer=adam, scheduler=cosine),
        # A third of the run for each stage, and a rhythm in the last one.
        "gan": build(
            "project.models.GANColorizer",
            space="rgb",
            generator=unet,
            discriminator=build(
                "project.networks.PatchGAN", in_channels=6, width=6, layers=2, norm="batch", spectral_norm=True
            ),
            adversarial=build("project.models.Hinge"),
            generator_optimizer=adam,
            discriminator_optimizer=adam,
            generator_scheduler=cosine,
            discriminator_scheduler=build("torch.optim.lr_scheduler.ExponentialLR", gamma=0.97),
            generator_steps=2,
            generator_epochs=third,
            critic_epochs=third,
        ),
    }
    score = {"monitor": "val/psnr", "mode": "max"}
    config = {
        "model": models[options.model],
        "data": {
            "root": str(images),
            "pairs": build("project.data.pairs.GaussianNoise", sigma=[5, 50]),
            "crop": 24,
            "batch_size": 4,
            "crops_per_image": 9,
            "num_workers": options.workers,
            "cache_dir": str(folder / ".cache"),
        },
        "trainer": {"check_val_every_n_epoch": None, "val_check_interval": 23, "log_every_n_steps": 3},
        "gradient_clipping": {"norm": 0.5},
        "ema": {"decay": 0.9},
        "early_stopping": {**score, "patience": 1000},
        "checkpoint": {**score, "snapshots": "cycles" if options.model == "unet" else "best", "most": 3},
    }
    path = folder / "soak.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def start(folder: Path, config: Path, name: str, options: argparse.Namespace, resume: bool) -> subprocess.Popen:
    words = [sys.executable, "-m", "project", "fit", "--name", name, "--wandb=off", "--trainer.accelerator=cpu"]
    words += ["--resume", "latest"] if resume else ["--config", str(config)]
    words += [f"--trainer.max_steps={options.steps}", "--trainer.max_time=null"]
    words += [f"--checkpoint.every_n_steps={options.every}", f"--trainer.devices={options.processes}"]
    words += ["--trainer.strategy=ddp"] if options.processes > 1 else []
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True, **quiet)


def run_once(folder: Path, config: Path, name: str, options: argparse.Namespace, resume: bool) -> None:
    process = start(folder, config, name, options, resume)
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"The run failed:\n{errors}")


def torment(folder: Path, config: Path, options: argparse.Namespace) -> list[int]:
    """Run, kill and resume until it was killed often enough and has come to its end.

    Every fourth kill comes at any moment of the start, the others a moment after a random step of what is left.

    Returns:
        Steps that were lost at each kill that came after the first checkpoint.
    """
    moments, latest = random.Random(options.seed), folder / "runs" / "killed" / "latest"
    losses: list[int] = []
    for kill in range(1, options.kills + 1):
        process = start(folder, config, "killed", options, resume=bool(list(latest.glob("checkpoints/*.ckpt"))))
        if kill % 4:
            saved = steps_saved(latest) or 0
            share = 2 * (options.steps - saved) / (options.kills - kill + 2)
            wait_for_step(process, latest, saved + int(moments.uniform(0, share)))
            time.sleep(moments.uniform(0, 0.5))
        else:
            time.sleep(moments.uniform(0, 8))
        reached = steps_reached(latest)
        ended = process.poll()
        if ended is None:
            os.killpg(process.pid, getattr(signal, f"SIG{options.signal}"))
        _, errors = process.communicate()
        if ended:
            sys.exit(f"The run failed before kill {kill}:\n{errors}")
        saved = steps_saved(latest)
        if saved is not None:
            losses.append(max(0, reached - saved))
        how = "had ended" if ended == 0 else f"killed at step {reached}"
        print(f"  {kill:3d}: {how}, resumes from {saved or 'the start'}", flush=True)
    run_once(folder, config, "killed", options, resume=bool(losses))
    return losses


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    """Wait until this start of the run has written a metric or a checkpoint, and got to a step, or has ended."""
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
    faults = []
    for pattern in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/snapshot-*.ckpt"):
        for first, second in in_both(one, other, pattern, faults):
            faults += [f"{first.name}: {place}" for place in different(content(first), content(second), "")]
    for pattern in ("metrics.csv", "measurements.csv", "findings.jsonl", "samples/*.png"):
        for first, second in in_both(one, other, pattern, faults):
            if first.read_bytes() != second.read_bytes():
                faults.append(f"{first.name} differs")
    return faults


def in_both(one: Path, other: Path, pattern: str, faults: list[str]) -> Iterator[tuple[Path, Path]]:
    """The files that both runs have; those that only one has are faults, and one that neither has."""
    names, others = ({path.relative_to(run) for path in run.glob(pattern)} for run in (one, other))
    faults += [f"{name} is in one run only" for name in sorted(names ^ others)]
    faults += [f"neither run has {pattern}"] if "*" not in pattern and not names | others else []
    return ((one / name, other / name) for name in sorted(names & others))


def content(path: Path) -> dict[str, Any]:
    """All of a checkpoint but what may differ: the run's name, and how often a validation was begun."""
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    del checkpoint["config"]
    if "loops" in checkpoint:  # a snapshot has none
        del checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    return checkpoint


def different(one: Any, other: Any, where: str) -> list[str]:
    """The places where two nested structures are not equal to the last bit."""
    if type(one) is not type(other):
        return [where]
    if isinstance(one, dict) and one.keys() == other.keys():
        return [place for key in one for place in different(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [place for number, pair in pairs for place in different(*pair, f"{where}.{number}")]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if same and bool(((one == other) | (one.isnan() & other.isnan())).all()) else [where]
    return [] if one == other or (one != one and other != other) else [where]  # NaN is not itself


if __name__ == "__main__":
    sys.exit(main())
