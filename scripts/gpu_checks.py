"""Train a denoiser and a GAN for equally many steps in 32, 16-mixed and bf16-mixed, and compare what comes out.

    python scripts/gpu_checks.py                          on a GPU, under 8 minutes; prints a table for docs/results.md
    python scripts/gpu_checks.py --steps 1000
    python scripts/gpu_checks.py --device cpu             32 and bf16-mixed, a few small steps: whether it runs at all

Both are the shipped configurations, clipped at a norm of 0.5. Checked is that weights stay finite, that gradients are
clipped unscaled (the first step's norm is that of 32), that few steps are skipped, and that PSNR is that of 32 within
1 dB; exits with 1 where one of these fails, and with 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

SCRIPT = Path(__file__).resolve()
REPOSITORY = SCRIPT.parents[1]
CONFIGS = {"UNet": "denoise.yaml", "GAN": "colorize.yaml"}
PRECISIONS = {"cuda": ("32-true", "16-mixed", "bf16-mixed"), "cpu": ("32-true", "bf16-mixed")}
WARMUP = 20  # steps whose time does not count: cuDNN tries its algorithms, memory is fetched
MOST_SKIPPED = 0.05  # share of the steps that a loss scale may cost: it starts high and is halved until gradients fit
WORSE = 1.0  # dB that a precision may cost against 32 after equally many steps
OTHER_NORM = 0.1  # share by which the first gradient norm may differ from that of 32; scaled, it is 65,536 times that


@dataclass
class Result:
    """What the folder of one run shows."""

    model: str
    precision: str
    step: float  # seconds, median
    memory: float  # MiB, peak of the device's; NaN on the CPU
    scale: float | None  # the last loss scale
    expected: int  # steps of optimizers
    taken: int
    psnr: float
    baseline: float
    finite: bool
    norms: dict[str, float]  # of each network's first gradients

    @property
    def skipped(self) -> int:
        return self.expected - self.taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=PRECISIONS, default="cuda", help="where to train [cuda]")
    parser.add_argument("--steps", type=int, help="of each training [400; on the CPU 6]")
    options = parser.parse_args()
    small = options.device == "cpu"
    if not small and not torch.cuda.is_available():
        print("There is no GPU here that PyTorch can use. --device cpu tries 32 and bf16-mixed.", file=sys.stderr)
        return 2
    options.steps = options.steps or (6 if small else 400)
    options.batch = 2 if small else 32
    device = "CPU" if small else torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}, {options.steps} steps of {options.batch} images", flush=True)
    results = []
    for model in CONFIGS:
        for precision in PRECISIONS[options.device]:
            results.append(train(model, precision, options))
            print(f"  {model} {precision}: done", flush=True)
    print_table(results)
    faults = find_faults(results)
    print("\n".join(faults) or "All precisions train alike.")
    return 1 if faults else 0


def train(model: str, precision: str, options: argparse.Namespace) -> Result:
    """One training by the real ``fit``."""
    words = ["--config", REPOSITORY / "configs" / CONFIGS[model], "--config", SCRIPT.with_suffix(".yaml")]
    words += [f"--trainer.precision={precision}", f"--trainer.accelerator={options.device}"]
    words += [f"--trainer.max_steps={options.steps}", f"--trainer.val_check_interval={options.steps}"]
    words += [f"--data.batch_size={options.batch}"]
    if model == "GAN":  # both networks train from the first step on
        words += ["--model.init_args.generator_epochs=0", "--model.init_args.critic_epochs=0"]
    if options.device == "cpu":
        words += ["--trainer.limit_val_batches=2", "--data.num_workers=0", "--data.eval_crop=32", "--data.crop=32"]
        words += ["--data.source=demo", "--data.resize=null", "--data.fractions=[0.7,0.2,0.1]"]
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "project", "fit", *words, "--name=run", "--runs_dir", runs, "--wandb=off"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return read_result(Path(runs, "run", "latest"), model, precision, options)


def read_result(run: Path, model: str, precision: str, options: argparse.Namespace) -> Result:
    metrics, speed = (read_columns(run / name) for name in ("metrics.csv", "throughput.csv"))
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    # A gradient scaler leaves out the optimizer's own step where gradients are not finite.
    optimizers = [state["state"].values() for state in checkpoint["optimizer_states"]]
    per_second = speed["samples_per_second"][min(WARMUP, options.steps // 2) :]
    networks = [match[1] for name in metrics if (match := re.fullmatch("grad/(.*)_norm", name))]
    return Result(
        model=model,
        precision=precision,
        step=options.batch / statistics.median(per_second),
        memory=max(speed.get("device_mib", [math.nan])),
        scale=checkpoint.get("MixedPrecision", {}).get("scale"),
        expected=options.steps * len(optimizers),
        taken=sum(max(int(parameter["step"]) for parameter in state) for state in optimizers),
        psnr=metrics["val/psnr"][-1],
        baseline=metrics["val/psnr_baseline"][-1],
        finite=all(bool(value.isfinite().all()) for value in checkpoint["state_dict"].values()),
        norms={name: next(filter(math.isfinite, metrics[f"grad/{name}_norm"]), math.nan) for name in networks},
    )


def read_columns(path: Path) -> dict[str, list[float]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def find_faults(results: list[Result]) -> list[str]:
    """What a precision does that 32 does not; a line for each."""
    faults, in_32 = [], {result.model: result for result in results if result.precision == "32-true"}
    for result in results:
        whole, wrong = in_32[result.model], []
        if not result.finite:
            wrong.append("weights are not finite")
        if result.skipped > max(2, MOST_SKIPPED * result.expected) or (result.skipped and result.scale is None):
            wrong.append(f"{result.skipped} of {result.expected} steps were skipped")
        if not result.psnr >= whole.psnr - WORSE:
            wrong.append(f"{result.psnr:.2f} dB, {whole.psnr:.2f} in 32")
        for network, norm in whole.norms.items():
            # Where the first steps are skipped, the first finite norm is that of another step.
            first = result.norms.get(network, math.nan)
            if not result.skipped and not abs(first - norm) <= OTHER_NORM * norm:
                wrong.append(f"the first gradient norm of {network} is {first:.3g}, {norm:.3g} in 32")
        faults += [f"{result.model} {result.precision}: {line}" for line in wrong]
    return faults


def print_table(results: list[Result]) -> None:
    in_32 = {result.model: result for result in results if result.precision == "32-true"}
    rows = [
        {
            "model": result.model,
            "precision": result.precision,
            "step (ms)": f"{1000 * result.step:.1f}",
            "against 32": f"{result.step / in_32[result.model].step:.2f}",
            "peak memory (MiB)": f"{result.memory:,.0f}",
            "last loss scale": str(result.scale or "-"),
            "steps skipped": f"{result.skipped} of {result.expected}",
            "first norms": ", ".join(f"{norm:.3g}" for norm in result.norms.values()),
            "PSNR (dB)": f"{result.psnr:.2f}",
            "doing nothing": f"{result.baseline:.2f}",
        }
        for result in results
    ]
    table = Table(*rows[0], box=box.MARKDOWN)
    for row in rows:
        table.add_row(*row.values())
    Console(width=200).print(table)


if __name__ == "__main__":
    sys.exit(main())
