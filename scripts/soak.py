"""Kill a small run at random moments, resume it each time, and compare its end with that of a run left in peace.

    make soak                                                   50 kills of one process on the CPU
    make soak ARGS="--model gan"                                the same of a GAN
    make soak ARGS="--kills 5 --processes 2 --workers 2"        options: python scripts/soak.py --help

Compared are the weights, the averaged weights, the snapshots, the optimizer, the schedulers, the counters, the random
states, ``metrics.csv`` and the sample images, byte by byte; exits with 1 where anything differs.
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

import numpy as np
import torch
import yaml
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
UNET = {"class_path": "project.networks.UNet", "init_args": {"widths": [8, 12], "norm": "batch", "dropout": 0.1}}
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003}}
COSINE = {"class_path": "project.models.WarmupCosine", "init_args": {"cycles": 4}}
EXPONENTIAL = "torch.optim.lr_scheduler.ExponentialLR"
EPOCH = 18
"""Steps of an epoch: 8 of the 12 images, each 9 times, in batches of 4."""


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(options.keep or name)
        folder.mkdir(parents=True, exist_ok=True)
        config = options.config or write_config(folder, options)
        print(f"A run of {options.steps} steps in {folder}, left in peace ...", flush=True)
        begin = time.monotonic()
        run_once(folder, config, "peace", options, resume=False)
        print(f"took {time.monotonic() - begin:.0f} s. Now killed {options.kills} times ...", flush=True)
        losses = torment(folder, config, options)
        runs = folder / "runs"
        faults = compare(runs / "peace" / "latest", runs / "killed" / "latest")
    if losses:
        print(
            f"Lost at a kill: {statistics.median(losses):.0f} steps in the middle, {max(losses)} at most "
            f"(a checkpoint at least every {options.every} steps)."
        )
    print("\n".join(faults) if faults else "The end is identical, bit by bit.")
    return 1 if faults else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how often to kill [50]")
    parser.add_argument("--steps", type=int, default=1000, help="length of the run [1000]")
    parser.add_argument("--every", type=int, default=7, help="steps between two checkpoints [7]")
    parser.add_argument("--processes", type=int, default=1, help="processes that train [1]")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images [0]")
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL", help="how to end it [KILL]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments [0]")
    parser.add_argument("--model", choices=["unet", "gan"], default="unet", help="what is trained [unet]")
    parser.add_argument("--config", type=Path, help="a configuration of your own; max_steps and such are set by this")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    return parser.parse_args()


def write_config(folder: Path, options: argparse.Namespace) -> Path:
    """A run that has everything that could go wrong: noise, EMA, schedules, clipping, validations in mid-epoch."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    y, x = np.mgrid[:41, :52] / 8
    for number in range(12):
        waves = [np.sin(x * (1 + number / 7) + c) * np.cos(y * (1 + c / 3) + number) for c in range(3)]
        Image.fromarray(np.uint8(127.5 + 120 * np.stack(waves, axis=-1))).save(pictures / f"{number:03d}.png")
    path = folder / "soak.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "model": denoiser() if options.model == "unet" else gan(options.steps),
                "data": {
                    "root": str(pictures),
                    "pairs": {"class_path": "project.data.pairs.GaussianNoise", "init_args": {"sigma": [5, 50]}},
                    "crop": 24,
                    "batch_size": 4,
                    "crops_per_image": 9,
                    "num_workers": options.workers,
                    "cache_dir": str(folder / ".cache"),
                },
                "trainer": {"check_val_every_n_epoch": None, "val_check_interval": 23, "log_every_n_steps": 3},
                "gradient_clipping": {"norm": 0.5},
                "ema": {"decay": 0.9},
                "early_stopping": {"monitor": "val/psnr", "mode": "max", "patience": 1000},
                "checkpoint": {
                    "monitor": "val/psnr",
                    "mode": "max",
                    "snapshots": "cycles" if options.model == "unet" else "best",
                    "most": 3,
                },
            }
        )
    )
    return path


def denoiser() -> dict[str, Any]:
    """A UNet, its optimizer and its schedule."""
    options = {"network": UNET, "optimizer": ADAM, "scheduler": COSINE}
    return {"class_path": "project.models.ImageRestorer", "init_args": options}


def gan(steps: int) -> dict[str, Any]:
    """Two networks, optimizers and schedules; a third of the run for each stage, and a rhythm in the last one."""
    third = max(1, steps // (3 * EPOCH))
    judge = {"in_channels": 6, "width": 6, "layers": 2, "norm": "batch", "spectral_norm": True}
    options: dict[str, Any] = {
        "space": "rgb",
        "generator": UNET,
        "discriminator": {"class_path": "project.networks.PatchGAN", "init_args": judge},
        "adversarial": {"class_path": "project.models.Hinge"},
        "generator_optimizer": ADAM,
        "discriminator_optimizer": ADAM,
        "generator_scheduler": COSINE,
        "discriminator_scheduler": {"class_path": EXPONENTIAL, "init_args": {"gamma": 0.97}},
        "generator_steps": 2,
        "generator_epochs": third,
        "critic_epochs": third,
    }
    return {"class_path": "project.models.GANColorizer", "init_args": options}


def command(config: Path, name: str, options: argparse.Namespace, resume: bool) -> list[str]:
    words = [sys.executable, "-m", "project", "fit", "--name", name, "--wandb", "off"]
    words += ["--resume", "latest"] if resume else ["--config", str(config)]
    words += ["--trainer.accelerator", "cpu", "--trainer.max_steps", str(options.steps), "--trainer.max_time", "null"]
    words += ["--checkpoint.every_n_steps", str(options.every), "--trainer.devices", str(options.processes)]
    if options.processes > 1:
        words += ["--trainer.strategy", "ddp"]
    return words


def start(folder: Path, config: Path, name: str, options: argparse.Namespace, resume: bool) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(config, name, options, resume),
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_once(folder: Path, config: Path, name: str, options: argparse.Namespace, resume: bool) -> None:
    process = start(folder, config, name, options, resume)
    _, told = process.communicate()
    if process.returncode:
        sys.exit(f"The run failed:\n{told}")


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
        _, told = process.communicate()
        if ended:
            sys.exit(f"The run failed before kill {kill}:\n{told}")
        saved = steps_saved(latest)
        if saved is not None:
            losses.append(max(0, reached - saved))
        how = "had ended" if ended == 0 else f"killed at step {reached}"
        print(f"  {kill:3d}: {how}, goes on from {saved or 'the start'}", flush=True)
    run_once(folder, config, "killed", options, resume=bool(losses))
    return losses


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    """Wait until this start of the run has written a figure or a checkpoint, and got to a step, or has ended."""
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
    for name in ("best", "last"):
        first, second = (
            torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True, map_location="cpu")
            for run in (one, other)
        )
        for content in (first, second):
            # How often a validation was begun does not matter, nor what the folder is called.
            content["loops"]["fit_loop"].pop("epoch_loop.val_loop.batch_progress")
        for key in ("global_step", "state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
            faults += [f"{name}.ckpt: {found}" for found in different(first.get(key), second.get(key), key)]
        for key in ("loops", "random_states", "exact_resume", "callbacks"):
            faults += [f"{name}.ckpt: {found}" for found in different(first[key], second[key], key)]
    kept = [{path.name: path for path in (run / "checkpoints").glob("snapshot-*.ckpt")} for run in (one, other)]
    if kept[0].keys() != kept[1].keys():
        faults.append(f"snapshots differ: {sorted(kept[0].keys() ^ kept[1].keys())}")
    for name in kept[0].keys() & kept[1].keys():
        first, second = (torch.load(files[name], weights_only=True)["state_dict"] for files in kept)
        faults += [f"{name}: {found}" for found in different(first, second, "state_dict")]
    tables = [(run / "metrics.csv").read_text().splitlines() for run in (one, other)]
    if tables[0] != tables[1]:
        row = next(
            (i for i, rows in enumerate(zip(*tables, strict=False)) if rows[0] != rows[1]), min(map(len, tables))
        )
        faults.append(f"metrics.csv: of {len(tables[0])} and {len(tables[1])} lines, the first to differ is {row}")
    for name in ("findings.jsonl", "measurements.csv"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            faults.append(f"{name} differs")
    names = [{path.name for path in (run / "samples").glob("*.png")} for run in (one, other)]
    if names[0] != names[1]:
        faults.append(f"sample images differ: {sorted(names[0] ^ names[1])}")
    for name in sorted(names[0] & names[1]):
        if (one / "samples" / name).read_bytes() != (other / "samples" / name).read_bytes():
            faults.append(f"samples/{name} differs")
    return faults


def different(one: Any, other: Any, where: str) -> list[str]:
    """The places where two nested structures are not equal to the last bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if same and bool(((one == other) | (one.isnan() & other.isnan())).all()) else [where]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in different(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            found for i, pair in enumerate(zip(one, other, strict=True)) for found in different(*pair, f"{where}.{i}")
        ]
    both_nan = isinstance(one, float) and isinstance(other, float) and one != one and other != other
    return [] if both_nan or (type(one) is type(other) and one == other) else [where]


if __name__ == "__main__":
    sys.exit(main())
