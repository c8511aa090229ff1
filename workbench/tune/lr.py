"""``tune-lr``: the learning-rate range test for any model, by the configuration that ``fit`` takes.

    python -m project tune-lr --config configs/denoise.yaml
    python -m project tune-lr --config configs/colorize.yaml --steps 200 --apply configs/colorize.yaml

The rate of each optimizer in turn grows exponentially from step to step, while the others keep theirs, until the loss
explodes (Smith 2017, "Cyclical learning rates for training neural networks"). A copy of the model is trained, by its
own training_step, without schedules; nothing is written but the image, and the file of --apply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor
from torch.optim import Optimizer

from workbench.console import silence_warnings
from workbench.errors import UserError
from workbench.findings.checks.trial import full_rate, stop_schedulers
from workbench.parser import split_options
from workbench.signals import STOP
from workbench.tune.apply import rate_key, write_values, yaml_number
from workbench.tune.curve import FEWEST, Curve, draw
from workbench.tune.steps import (
    Task,
    build_task,
    configured_rate,
    option_parser,
    probe_optimizers,
    start_in_epoch,
)

EXPLODED = 3.0  # times its lowest value, what it fell by, or its spread, above that value: here a sweep ends
RUNNING = 0.9  # of the running mean that is compared with it
BATCHES_PER_STEP = 20  # most that are waited for


def main(argv: list[str]) -> int:
    """Run ``tune-lr``; returns 1 where no rate could be suggested."""
    silence_warnings()
    parser = option_parser(argv[0], "Suggest a learning rate for each optimizer of a model.")
    add = parser.add_argument
    add("--min", type=float, default=1e-6, help="lowest rate that is tried")
    add("--max", type=float, default=1.0, help="highest rate that is tried")
    add("--steps", type=int, default=100, help="steps from one to the other, for each optimizer")
    add("--output", type=Path | None, default=None, help="file or folder of the image; default: RUNS/NAME/lr.png")
    add("--apply", type=Path | None, default=None, help="YAML configuration to write the suggestions into")
    options, words = split_options(parser, argv[1:])
    if not 0 < options.min < options.max or options.steps < 2 * FEWEST:
        raise UserError(f"--min must be above 0 and below --max, and --steps at least {2 * FEWEST}.")
    if options.apply is not None and not options.apply.is_file():
        raise UserError(f"--apply: there is no file {options.apply}.")
    with STOP.handled():
        task, config = build_task(argv[0], words)
        with Console(stderr=True).status("") as status:
            curves = range_test(task, options.min, options.max, options.steps, status.update)
    path = options.output or Path(config.runs_dir, config.name)
    path = path if path.suffix.lower() in (".png", ".pdf", ".svg", ".jpg") else path / "lr.png"
    draw(curves, path)
    keys = {c.network: rate_key(task.config, c.network, c.configured, alone=len(curves) == 1) for c in curves}
    for curve in curves:
        print("\n".join(_describe(curve, keys[curve.network], options.max)))
    print(f"Image  {path}")
    if options.apply is not None:
        _apply(curves, keys, options.apply)
    return int(any(curve.problem for curve in curves))


def range_test(
    task: Task, low: float, high: float, steps: int, report: Callable[[str], None] = lambda text: None
) -> list[Curve]:
    """The curve of each of the model's optimizers, in their order, measured on copies of the model.

    A model that trains its optimizers in different epochs, as some GANs do, is tested as if it were in the first epoch
    that steps all of them.
    """
    report("looking for the optimizers")
    probe = probe_optimizers(task)
    rates = np.geomspace(low, high, steps).tolist()
    curves = []
    for number, (network, configured) in enumerate(zip(probe.networks, probe.configured, strict=True)):
        epoch = probe.common if probe.common is not None else probe.first.get(number)
        if epoch is None:
            text = f"its optimizer was not stepped in the first batches of {probe.epochs} epochs"
            curves.append(Curve(network, configured, rates, [], text))
            continue
        sweep = _Sweep(number, rates, epoch, lambda text, network=network: report(f"{network}: {text}"))
        task.run(sweep)
        curves.append(Curve(network, configured, rates, sweep.losses, sweep.ended))
    return curves


@dataclass(eq=False)
class _Sweep(Callback):
    """Lets the rate of one optimizer grow from step to step, and records the loss that it minimizes.

    That is the sum of the losses of the backward passes before its step that reach its parameters.
    """

    number: int  # of the optimizer
    rates: Sequence[float]
    epoch: int  # that the model is told it is in
    report: Callable[[str], None]
    losses: list[float] = field(default_factory=list)  # before the step with the rate of the same position
    ended: str = ""
    _passes: list[tuple[Tensor, bool]] = field(default_factory=list)  # since the last step of any optimizer
    _older: list[tuple[Tensor, bool]] = field(default_factory=list)  # before that, since the last of this one
    _batches: int = 0
    _mean: float = 0.0
    _best: float = math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stop_schedulers(trainer)
        start_in_epoch(trainer, self.epoch)
        self.optimizer = trainer.optimizers[self.number]
        base = configured_rate(self.optimizer)  # groups with rates of their own keep their share of it
        self._scale = [full_rate(group) / base for group in self.optimizer.param_groups]
        self._full = [[full_rate(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._loss = loss.detach() if scaler is None else loss.detach() / scaler.get_scale()
        self._before = self._gradient(trainer)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._passes.append((self._loss, self._before is None or self._gradient(trainer) != self._before))

    def _gradient(self, trainer: Trainer) -> float | None:
        """The norm of this optimizer's gradients, which a pass that reaches it changes; None: it is the only one."""
        if len(trainer.optimizers) == 1:
            return None
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms = [torch.linalg.vector_norm(p.grad) for p in parameters]
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        passes, self._passes = self._passes, []
        for other, full in zip(trainer.optimizers, self._full, strict=True):  # the model may warm them up itself
            for group, rate in zip(other.param_groups, full, strict=True):
                group["lr"] = rate
        # The pass of another network may leave gradients here as well; it came before that network's step.
        own = [loss for loss, reaches in passes if reaches]
        if optimizer is not self.optimizer:
            self._older += passes
        else:
            own = own or [loss for loss, reaches in self._older if reaches]
            self._older = []
            self._take(trainer, float(torch.stack(own).sum()) if own else math.nan)
        rate = self.rates[max(len(self.losses) - 1, 0)]
        for group, scale in zip(self.optimizer.param_groups, self._scale, strict=True):
            group["lr"] = rate * scale

    def _take(self, trainer: Trainer, loss: float) -> None:
        """Record a loss, and end the sweep where it explodes."""
        if not math.isfinite(loss):
            no_pass = "no backward pass reached it: under manual optimization use self.manual_backward(loss)"
            self.ended = no_pass if not self.losses else f"the loss is {loss}"
            trainer.should_stop = True
            return
        self.losses.append(loss)
        count = len(self.losses)
        self._mean = RUNNING * self._mean + (1 - RUNNING) * loss
        mean = self._mean / (1 - RUNNING**count)
        if count >= FEWEST:
            self._best = min(self._best, mean)
            start = self.losses[:FEWEST]
            scale = max(abs(self._best), sum(start) / FEWEST - self._best, max(start) - min(start))
            if mean > self._best + EXPLODED * scale:
                self.ended = f"the loss exploded at {yaml_number(self.rates[count - 1])}"
        trainer.should_stop |= bool(self.ended) or count == len(self.rates)
        self.report(f"step {count} of {len(self.rates)}, rate {yaml_number(self.rates[count - 1])}, loss {loss:.4g}")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._batches += 1
        if self._batches > BATCHES_PER_STEP * (len(self.losses) + 1):
            self.ended, trainer.should_stop = f"its optimizer was stepped {len(self.losses)} times only", True


def _describe(curve: Curve, key: str | None, highest: float) -> list[str]:
    """What is printed of an optimizer."""
    if curve.problem:
        return [f"{curve.network}: no suggestion, {curve.problem} (configured: {yaml_number(curve.configured)})"]
    others = ", ".join(f"{name} {yaml_number(v)}" for name, v in curve.candidates.items() if name != curve.reason)
    lines = [
        f"{curve.network}: learning rate {yaml_number(curve.suggestion)}, the {curve.reason}",
        f"  the higher of two, beside the {others}; configured: {yaml_number(curve.configured)}",
    ]
    if curve.still_falling:
        lines.append(f"  the loss still falls at the highest rate: --max {10 * highest:g} looks further")
    else:
        limit = f"  the loss is lowest at {yaml_number(curve.rates[curve.minimum])}"
        lines.append(f"{limit}, the limit for a schedule with a warm-up" + (f"; {curve.ended}" if curve.ended else ""))
    if key is not None:
        lines.append(f"  use it: --{key} {yaml_number(curve.suggestion)}")
    return lines


def _apply(curves: Sequence[Curve], keys: dict[str, str | None], path: Path) -> None:
    found = [curve for curve in curves if curve.suggestion is not None]
    for curve in found:
        if keys[curve.network] is None:
            raise UserError(
                f"--apply: {path} is unchanged: no key of the configuration is the learning rate of {curve.network} "
                f"alone ({yaml_number(curve.configured)}).\nGive its optimizer an init_args.lr of its own there, and "
                f"set it to {yaml_number(curve.suggestion)}."
            )
    before = write_values(path, {keys[curve.network]: curve.suggestion for curve in found})
    for curve in found:
        key = keys[curve.network]
        print(f"{path}: {key} {before[key]} -> {yaml_number(curve.suggestion)}")
