"""A training step against the same networks in a bare PyTorch loop; what the monitors cost; the time to start."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback
from short_fit import short_fit
from timing import Moment, print_comparison, take_turns, timed

from workbench.watch import Watch

WARMUP = 10
ENDLESS = ["--trainer.max_time=null", "--trainer.max_epochs=-1"]
ON, OFF = "monitors on", "monitors off"
# Run in a process of its own, which ends with its first step.
FIRST_STEP = """
import os, sys
from lightning.pytorch import Callback
from short_fit import short_fit

class End(Callback):
    def on_train_batch_end(self, *_):
        os._exit(0)

short_fit(End(), sys.argv[1:])
"""


def compare_steps(config: str, steps: int, rounds: int, rest: list[str]) -> None:
    """Time `fit` with everything on and the bare loop in turns, each after steps that warm it up; print the ratios.

    The bare loop has its crops in memory, makes the pairs and steps the optimizers: no loader, logging, averaging,
    clipping or validation.
    """
    arguments = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["model"].get("init_args", {})
    stages = [key for key in ("generator_epochs", "critic_epochs") if key in arguments]
    rest = [*(f"--model.init_args.{key}=0" for key in stages), *rest]  # both networks train, as in the bare loop
    built: dict[str, Any] = {}

    def fit() -> Moment:
        moments: dict[int, Moment] = {}

        class Clock(Callback):
            def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
                moments[trainer.global_step] = Moment.now()

        words = ["--config", config, f"--trainer.max_steps={WARMUP + steps + 1}", "--trainer.limit_val_batches=0"]
        cli = short_fit(Clock(), [*words, *ENDLESS, *rest])
        built.update(model=cli.model, data=cli.datamodule)
        return moments[WARMUP + steps].since(moments[WARMUP], steps)

    def bare_loop() -> Moment:
        raw = cycle(list(islice(built["data"].train_dataloader(), 8)))
        step = (_bare_gan if hasattr(built["model"], "generator") else _bare_restorer)(built["model"])

        def run(number: int) -> int:
            for _ in range(number):
                step(built["data"].make_batch(next(raw), training=True))
            return number

        run(WARMUP)
        return timed(lambda: run(steps))

    sides = {"everything on": fit, "bare loop": bare_loop}
    print_comparison(f"a step of {config}", take_turns(sides, rounds, warm_up=0), "ms", 1000)


def _bare_restorer(model: Any) -> Callable[[Any], None]:
    network = copy.deepcopy(model.network).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    return lambda pair: _optimize(optimizer, (network(pair.input) - pair.target).abs().mean())


def _bare_gan(model: Any) -> Callable[[Any], None]:
    generator, discriminator = (copy.deepcopy(part).train() for part in (model.generator, model.discriminator))
    optimizers = [torch.optim.Adam(part.parameters(), 1e-4) for part in (generator, discriminator)]

    def judge(pair: Any, colors: torch.Tensor) -> torch.Tensor:
        return discriminator(torch.cat([pair.input, colors], 1))

    def step(pair: Any) -> None:
        real = model.space.encode(pair.target)
        fake = generator(pair.input)
        _optimize(optimizers[1], model.adversarial.discriminator(judge(pair, real), judge(pair, fake.detach())))
        discriminator.requires_grad_(False)
        loss = model.adversarial.generator(judge(pair, fake))
        _optimize(optimizers[0], loss + model.reconstruction_weight * (fake - real).abs().mean())
        discriminator.requires_grad_(True)

    return step


def _optimize(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def compare_monitors(config: str, steps: int, rounds: int, rest: list[str]) -> None:
    """Time a step of one `fit` in which the monitors are on and off in turns, a validation in each turn.

    A first turn does not count: it looks more often than the others.
    """
    order = [ON] + [name for number in range(rounds) for name in ((ON, OFF), (OFF, ON))[number % 2]]
    turns: dict[str, list[Moment]] = {ON: [], OFF: []}

    class Switch(Callback):
        """Comes last, so that a turn begins when the others are through with what came before."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.all = list(trainer.callbacks)
            self.none = [callback for callback in self.all if not isinstance(callback, Watch)]

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step % steps:
                return
            now, turn = Moment.now(), trainer.global_step // steps
            if turn > 1:
                turns[order[turn - 1]].append(now.since(self.start, steps))
            self.start = now
            trainer.callbacks = self.all if turn == len(order) or order[turn] == ON else self.none

    words = ["--config", config, f"--trainer.max_steps={steps * len(order) + 1}", *ENDLESS]
    words += [f"--trainer.val_check_interval={steps}", "--trainer.check_val_every_n_epoch=null"]
    short_fit(Switch(), [*words, "--checkpoint.every_n_minutes=0", *rest])
    print_comparison(f"a step of {config}", turns, "ms", 1000)


def compare_starts(config: str, rounds: int, rest: list[str]) -> None:
    """Time to the first step, the images indexed before, against the import of Lightning alone."""

    def run(*program: str) -> Callable[[], Moment]:
        return lambda: timed(lambda: len([subprocess.run([sys.executable, "-c", *program], check=True)]))

    with tempfile.TemporaryDirectory() as cache:
        words = ["--config", config, "--data.cache_dir", cache, *rest]
        sides = {"first step": run(FIRST_STEP, *words), "import lightning.pytorch": run("import lightning.pytorch")}
        times = take_turns(sides, rounds)
    print_comparison(f"start of {config}", times, "s", 1)
