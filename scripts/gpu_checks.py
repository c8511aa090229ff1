"""Train a denoiser and a GAN for equally many steps in 32, 16-mixed and bf16-mixed, and compare what comes out.

    python scripts/gpu_checks.py                          on a GPU, under 8 minutes; prints a table for docs/results.md
    python scripts/gpu_checks.py --steps 1000 --batch 64
    python scripts/gpu_checks.py --device cpu             32 and bf16-mixed, a few small steps: whether it runs at all

Both are the shipped configurations, clipped at a norm of 0.5. Checked is that weights stay finite, that gradients are
clipped unscaled (the first step's norm is that of 32), that few steps are skipped, and that PSNR is that of 32 within
1 dB; exits with 1 where one of these fails, and with 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from rich import box
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))
from short_fit import short_fit  # noqa: E402

CONFIGS = {"UNet": "denoise.yaml", "GAN": "colorize.yaml"}
PRECISIONS = {"cuda": ("32-true", "16-mixed", "bf16-mixed"), "cpu": ("32-true", "bf16-mixed")}
WARMUP = 20
"""Steps before the clock starts: cuDNN tries its algorithms, memory is fetched."""
MOST_SKIPPED = 0.05
"""Share of the steps that a loss scale may cost: it starts high and is halved until gradients fit."""
WORSE = 1.0
"""dB that a precision may cost against 32 after equally many steps."""
OTHER_NORM = 0.1
"""Share by which the first step's gradient norm may differ from that of 32; a scaled one would be 65,536 times it."""


class Training(Callback):
    """Records one training while it runs."""

    def __init__(self, model: str, precision: str) -> None:
        self.model, self.precision = model, precision
        self.times: list[float] = []  # of the ends of steps, in seconds
        self.memory: float | None = None  # MiB, peak of the device's
        self.scales: list[float] = []  # the loss scale after each step
        self.expected = self.taken = 0  # steps of optimizers
        self.norms: dict[str, float] = {}  # of each network's first gradients
        self.psnr = self.baseline = math.nan
        self.finite = False

    @property
    def name(self) -> str:
        return f"{self.model} {self.precision}"

    @property
    def skipped(self) -> int:
        return self.expected - self.taken

    @property
    def step(self) -> float:
        """Median seconds of a step."""
        times = self.times[min(WARMUP, len(self.times) // 2) :]
        return statistics.median(after - before for before, after in zip(times, times[1:], strict=False))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def count(*_: Any) -> None:
            self.taken += 1

        for optimizer in trainer.optimizers:
            # A gradient scaler leaves out the optimizer's own step where gradients are not finite.
            optimizer.register_step_post_hook(count)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.expected += 1

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
            self.memory = torch.cuda.max_memory_allocated() / 2**20
        self.times.append(time.perf_counter())
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            self.scales.append(scaler.get_scale())
        for name, value in trainer.callback_metrics.items():
            if name.startswith("grad/") and name.endswith("_norm") and math.isfinite(value):
                self.norms.setdefault(name.removeprefix("grad/").removesuffix("_norm"), float(value))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        logged = trainer.callback_metrics
        self.psnr, self.baseline = float(logged["val/psnr"]), float(logged["val/psnr_baseline"])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.finite = all(bool(p.isfinite().all()) for p in pl_module.parameters())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=PRECISIONS, default="cuda", help="where to train [cuda]")
    parser.add_argument("--steps", type=int, help="of each training [400; on the CPU 6]")
    parser.add_argument("--batch", type=int, help="images of a step [32; on the CPU 2]")
    options = parser.parse_args()
    small = options.device == "cpu"
    if not small and not torch.cuda.is_available():
        print("There is no GPU here that PyTorch can use. --device cpu tries 32 and bf16-mixed.", file=sys.stderr)
        return 2
    options.steps = options.steps or (6 if small else 400)
    options.batch = options.batch or (2 if small else 32)
    device = "CPU" if small else torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}, {options.steps} steps of {options.batch} images", flush=True)
    trainings = [Training(model, precision) for model in CONFIGS for precision in PRECISIONS[options.device]]
    for training in trainings:
        train(training, options)
        print(f"  {training.name}: done", flush=True)
    print_table(trainings)
    faults = find_faults(trainings)
    print("\n".join(faults) or "All precisions train alike.")
    return 1 if faults else 0


def train(training: Training, options: argparse.Namespace) -> None:
    """By the real ``fit``, its last validation included."""
    seed_everything(42, verbose=False)
    words = ["--config", str(REPOSITORY / "configs" / CONFIGS[training.model])]
    words += ["--config", str(Path(__file__).with_suffix(".yaml")), f"--trainer.precision={training.precision}"]
    words += [f"--trainer.max_steps={options.steps}", f"--trainer.val_check_interval={options.steps}"]
    words += [f"--data.batch_size={options.batch}"]
    if training.model == "GAN":  # both networks train from the first step on
        words += ["--model.init_args.generator_epochs=0", "--model.init_args.critic_epochs=0"]
    if options.device == "cpu":
        words += ["--trainer.limit_val_batches=2", "--data.num_workers=0", "--data.eval_crop=32", "--data.crop=32"]
        words += ["--data.source=demo", "--data.resize=null", "--data.fractions=[0.7,0.2,0.1]"]
        words += ["--trainer.accelerator=cpu"]
    else:
        words += ["--trainer.accelerator=gpu"]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    short_fit(training, words)


def find_faults(trainings: list[Training]) -> list[str]:
    """What a precision does that 32 does not; a line for each."""
    faults = []
    for one in trainings:
        whole = in_32(one, trainings)
        if not one.finite:
            faults.append(f"{one.name}: weights are not finite")
        if one.skipped > max(2, MOST_SKIPPED * one.expected) or (one.skipped and not one.scales):
            faults.append(f"{one.name}: {one.skipped} of {one.expected} steps were skipped")
        if not one.psnr >= whole.psnr - WORSE:
            faults.append(f"{one.name}: {one.psnr:.2f} dB, {whole.psnr:.2f} in 32")
        for network, norm in whole.norms.items():
            # Where the first steps are skipped, the first finite norm is that of another step.
            first = one.norms.get(network, math.nan)
            if not one.skipped and not abs(first - norm) <= OTHER_NORM * norm:
                faults.append(f"{one.name}: the first gradient norm of {network} is {first:.3g}, {norm:.3g} in 32")
    return faults


def in_32(training: Training, trainings: list[Training]) -> Training:
    return next(one for one in trainings if one.model == training.model and one.precision == "32-true")


def print_table(trainings: list[Training]) -> None:
    headings = ("model", "precision", "step (ms)", "against 32", "peak memory (MiB)", "loss scale: first, last")
    table = Table(*headings, "skipped", "first norms", "PSNR (dB)", "doing nothing", box=box.MARKDOWN)
    for one in trainings:
        table.add_row(
            one.model,
            one.precision,
            f"{1000 * one.step:.1f}",
            f"{one.step / in_32(one, trainings).step:.2f}",
            f"{one.memory:,.0f}" if one.memory else "-",
            f"{one.scales[0]:,.0f}, {one.scales[-1]:,.0f}" if one.scales else "-",
            f"{one.skipped} of {one.expected}",
            ", ".join(f"{norm:.3g}" for norm in one.norms.values()),
            f"{one.psnr:.2f}",
            f"{one.baseline:.2f}",
        )
    Console(width=200).print(table)


if __name__ == "__main__":
    sys.exit(main())
