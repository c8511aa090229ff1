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
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything

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


@dataclass
class Result:
    """What one training has shown."""

    model: str
    precision: str
    step: float = math.nan  # seconds, median
    memory: float | None = None  # MiB, peak of the device's
    scales: list[float] = field(default_factory=list)  # the loss scale after each step
    expected: int = 0  # steps of optimizers
    taken: int = 0
    norms: dict[str, float] = field(default_factory=dict)  # of each network's first gradients
    clipped: float = math.nan  # share of the steps
    psnr: float = math.nan
    baseline: float = math.nan
    finite: bool = False

    @property
    def skipped(self) -> int:
        return self.expected - self.taken


def main() -> int:
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "There is no GPU here that PyTorch can use, and this compares precisions on one.\n"
            "On a machine without one: --device cpu tries 32 and bf16-mixed in a few small steps.",
            file=sys.stderr,
        )
        return 2
    begin, results = time.monotonic(), []
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{device}, torch {torch.__version__}, {options.steps} steps of {options.batch} images", flush=True)
    for model in options.models:
        for precision in PRECISIONS[options.device]:
            results.append(train(model, precision, options))
            print(f"  {model} {precision}: {time.monotonic() - begin:.0f} s", flush=True)
    print_table(results)
    faults = find_faults(results)
    print("\n".join(faults) if faults else "All precisions train alike.")
    return 1 if faults else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=PRECISIONS, default="cuda", help="where to train [cuda]")
    parser.add_argument("--models", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="which to train [both]")
    parser.add_argument("--steps", type=int, help="of each training [400; on the CPU 6]")
    parser.add_argument("--batch", type=int, help="images of a step [32; on the CPU 2]")
    options = parser.parse_args()
    small = options.device == "cpu"
    options.steps = options.steps or (6 if small else 400)
    options.batch = options.batch or (2 if small else 32)
    return options


def train(model: str, precision: str, options: argparse.Namespace) -> Result:
    """One training by the real ``fit``, its last validation included."""
    seed_everything(42, verbose=False)
    result = Result(model, precision)
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as runs:
        short_fit(Record(result), words(model, precision, options, runs))
    return result


def words(model: str, precision: str, options: argparse.Namespace, runs: str) -> list[str]:
    """The command line of one training."""
    accelerator = {"cuda": "gpu", "cpu": "cpu"}[options.device]
    given = ["--config", str(REPOSITORY / "configs" / CONFIGS[model]), "--runs_dir", runs, "--samples.count=0"]
    given += [f"--trainer.precision={precision}", f"--trainer.accelerator={accelerator}", "--trainer.devices=1"]
    given += [f"--trainer.max_steps={options.steps}", "--trainer.max_epochs=-1", "--trainer.max_time=null"]
    given += [f"--trainer.val_check_interval={options.steps}", "--trainer.check_val_every_n_epoch=null"]
    given += ["--trainer.log_every_n_steps=1", "--gradient_clipping.norm=0.5"]
    given += [f"--data.batch_size={options.batch}", "--checkpoint.monitor=null"]
    if model == "GAN":  # both networks train from the first step on
        given += ["--model.init_args.generator_epochs=0", "--model.init_args.critic_epochs=0"]
    if options.device == "cpu":
        given += ["--trainer.limit_val_batches=2", "--data.num_workers=0", "--data.eval_crop=32", "--data.crop=32"]
        given += ["--data.source=demo", "--data.resize=null", "--data.fractions=[0.7,0.2,0.1]"]
    return given


class Record(Callback):
    """Fills in the result while a model trains."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.times: list[float] = []
        self.clipped: list[float] = []
        self.last = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for optimizer in trainer.optimizers:
            # A gradient scaler leaves out the optimizer's own step where gradients are not finite.
            optimizer.register_step_post_hook(lambda *_: setattr(self.result, "taken", self.result.taken + 1))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.result.expected += 1

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if trainer.global_step > min(WARMUP, trainer.max_steps // 2):
            self.times.append(now - self.last)
        self.last = now
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            self.result.scales.append(scaler.get_scale())
        logged = trainer.callback_metrics
        for name, value in logged.items():
            if name.startswith("grad/") and name.endswith("_norm") and math.isfinite(value):
                self.result.norms.setdefault(name.removeprefix("grad/").removesuffix("_norm"), float(value))
        self.clipped.append(statistics.mean(float(logged[name]) for name in logged if name.endswith("_clipped")))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        logged = trainer.callback_metrics
        self.result.psnr, self.result.baseline = float(logged["val/psnr"]), float(logged["val/psnr_baseline"])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.result.step = statistics.median(self.times)
        if pl_module.device.type == "cuda":
            self.result.memory = torch.cuda.max_memory_allocated() / 2**20
        self.result.clipped = statistics.mean(self.clipped)
        self.result.finite = all(bool(p.isfinite().all()) for p in pl_module.parameters())


def in_32(result: Result, results: list[Result]) -> Result:
    return next(one for one in results if one.model == result.model and one.precision == "32-true")


def find_faults(results: list[Result]) -> list[str]:
    """What a precision does that 32 does not; a line for each."""
    faults = []
    for result in results:
        whole = in_32(result, results)
        name = f"{result.model} {result.precision}"
        if not result.finite:
            faults.append(f"{name}: weights are not finite")
        if result.skipped > max(2, MOST_SKIPPED * result.expected) or (result.skipped and not result.scales):
            faults.append(f"{name}: {result.skipped} of {result.expected} steps were skipped")
        if not result.psnr >= whole.psnr - WORSE:
            faults.append(f"{name}: {result.psnr:.2f} dB, {whole.psnr:.2f} in 32")
        for network, norm in whole.norms.items():
            # Where the first steps are skipped, the first finite norm is that of another step.
            first = result.norms.get(network, math.nan)
            if not result.skipped and not abs(first - norm) <= OTHER_NORM * norm:
                faults.append(f"{name}: the first gradient norm of {network} is {first:.3g}, {norm:.3g} in 32")
    return faults


def print_table(results: list[Result]) -> None:
    """The results as a table of Markdown."""
    print(
        "\n| | precision | step (ms) | against 32 | peak memory (MiB) | loss scale: first, last | steps skipped "
        "| steps clipped | first norms | PSNR (dB) | doing nothing |\n" + "| --- " * 11 + "|"
    )
    for result in results:
        whole = in_32(result, results)
        memory = "-" if result.memory is None else f"{result.memory:,.0f}"
        scales = f"{result.scales[0]:,.0f}, {result.scales[-1]:,.0f}" if result.scales else "-"
        norms = ", ".join(f"{norm:.3g}" for norm in result.norms.values())
        cells = [result.model, result.precision, f"{1000 * result.step:.1f}", f"{result.step / whole.step:.2f}", memory]
        cells += [scales, f"{result.skipped} of {result.expected}", f"{result.clipped:.0%}", norms]
        print(" | ".join(["", *cells, f"{result.psnr:.2f}", f"{result.baseline:.2f} |"]).strip())
    print()


if __name__ == "__main__":
    sys.exit(main())
