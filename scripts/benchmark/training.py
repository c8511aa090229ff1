"""A training step against the same networks in a bare PyTorch loop; what the monitors cost; the time to start."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from lightning.pytorch import Callback
from short_fit import short_fit
from timing import Moment, print_comparison

from workbench.cli import CALLBACKS
from workbench.main import PROGRAM
from workbench.watch import Watch

WARMUP = 15
ENDLESS = ["--trainer.max_time=null", "--trainer.max_epochs=-1"]
ON, OFF = "monitors on", "monitors off"
# Run in a process of its own, which ends with its first step.
FIRST_STEP = """
import json, os, resource, sys
from lightning.pytorch import Callback
from short_fit import short_fit

class End(Callback):
    def on_train_batch_end(self, *_):
        use = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([use.ru_utime + use.ru_stime, use.ru_maxrss]), flush=True)
        os._exit(0)

short_fit(End(), sys.argv[1:])
"""
IMPORTS = """
import json, resource
import lightning.pytorch
use = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([use.ru_utime + use.ru_stime, use.ru_maxrss]))
"""


def compare_steps(config: str, steps: int, rounds: int, rest: list[str]) -> None:
    """Time `fit` with everything on, with every callback off, and the bare loop, in turns; print the ratios.

    The bare loop cuts crops out of arrays in memory, flips them, makes the pair and steps the optimizers: no logging,
    averaging, clipping or validation.
    """
    sides: dict[str, list[Moment]] = defaultdict(list)
    arguments = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["model"].get("init_args", {})
    stages = [key for key in ("generator_epochs", "critic_epochs") if key in arguments]
    rest = [*(f"--model.init_args.{key}=0" for key in stages), *rest]  # both networks train, as in the bare loop
    for _ in range(rounds):
        time, _ = _time_fit(config, steps, rest)
        sides["everything on"].append(time)
        with patch.dict(CALLBACKS, clear=True), patch.dict(PROGRAM.callbacks, clear=True):
            time, cli = _time_fit(_without_callbacks(config), steps, [*rest, "--trainer.enable_progress_bar=false"])
        sides["callbacks off"].append(time)
        sides["bare loop"].append(_time_bare(cli, steps))
    print_comparison(f"a step of {config}", sides, "ms", 1000)


def _without_callbacks(config: str) -> dict[str, Any]:
    """The configuration; it may not name keys that are not there."""
    whole = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    return {key: value for key, value in whole.items() if key in ("model", "data", "trainer")}


def _time_fit(config: str | dict[str, Any], steps: int, rest: list[str]) -> tuple[Moment, Any]:
    """One step of the real `fit`; validation and start-up left out."""
    moments: dict[int, Moment] = {}

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            moments[trainer.global_step] = Moment.now()

    with tempfile.TemporaryDirectory() as runs:
        if isinstance(config, dict):
            path = Path(runs, "config.yaml")
            path.write_text(yaml.safe_dump(config), encoding="utf-8")
            config = str(path)
        words = ["--config", config, "--runs_dir", runs, f"--trainer.max_steps={WARMUP + steps + 1}"]
        cli = short_fit(Clock(), [*words, "--trainer.limit_val_batches=0", *ENDLESS, *rest])
    return moments[WARMUP + steps].since(moments[WARMUP], steps), cli


def _time_bare(cli: Any, steps: int) -> Moment:
    """One step of plain PyTorch over the same networks, crops and pairs."""
    batches = _pairs(cli.datamodule)
    step = (_bare_gan if hasattr(cli.model, "generator") else _bare_restorer)(cli.model)
    for number in range(WARMUP + steps):
        if number == WARMUP:
            start = Moment.now()
        step(next(batches))
    return Moment.now().since(start, steps)


def _bare_restorer(model: Any) -> Callable[[Any], None]:
    network = copy.deepcopy(model.network).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def step(pair: Any) -> None:
        loss = (network(pair.input) - pair.target).abs().mean()
        _optimize(optimizer, loss)

    return step


def _bare_gan(model: Any) -> Callable[[Any], None]:
    generator, discriminator = (copy.deepcopy(part).train() for part in (model.generator, model.discriminator))
    adversarial, space, weight = model.adversarial, model.space, model.reconstruction_weight
    optimizers = [torch.optim.Adam(part.parameters(), 1e-4) for part in (generator, discriminator)]

    def judge(pair: Any, colors: torch.Tensor) -> torch.Tensor:
        return discriminator(torch.cat([pair.input, colors], 1))

    def step(pair: Any) -> None:
        real = space.encode(pair.target)
        fake = generator(pair.input)
        _optimize(optimizers[1], adversarial.discriminator(judge(pair, real), judge(pair, fake.detach())))
        discriminator.requires_grad_(False)
        loss = adversarial.generator(judge(pair, fake))
        _optimize(optimizers[0], loss + weight * (fake - real).abs().mean())
        discriminator.requires_grad_(True)

    return step


def _optimize(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _pairs(data: Any) -> Iterator[Any]:
    """Batches of random crops of the training images, as the pair maker turns them into input and target."""
    rng = np.random.default_rng(0)
    store, size = data.dataset("train").store, data.hparams.batch_size
    sides = [store.__getitem__, *([store.target] if store.has_targets else [])]
    images = [[np.array(side(number)) for side in sides] for number in range(len(store))]
    index = torch.zeros(size, dtype=torch.int64)
    while True:
        crops = [_crop(images[number], data.hparams.crop, rng) for number in rng.integers(len(images), size=size)]
        # Channels last in memory, as the networks like it.
        batch = [torch.from_numpy(np.stack(row)).permute(0, 3, 1, 2).float() / 255 for row in zip(*crops, strict=True)]
        image, target = batch if store.has_targets else (*batch, None)
        yield data.pairs(image, target, index, index, True)


def _crop(sides: list[np.ndarray], crop: int | None, rng: Any) -> list[np.ndarray]:
    """The same window of each, mirrored half of the time; without a crop the whole."""
    height, width = sides[0].shape[:2]
    top, left = (int(rng.integers(length - (crop or length) + 1)) for length in (height, width))
    window = slice(top, top + (crop or height)), slice(left, left + (crop or width))
    return [side[window][:, :: 1 if flip else -1] for flip in [rng.random() < 0.5] for side in sides]


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

    with tempfile.TemporaryDirectory() as runs:
        words = ["--config", config, "--runs_dir", runs, f"--trainer.max_steps={steps * len(order) + 1}", *ENDLESS]
        words += [f"--trainer.val_check_interval={steps}", "--trainer.check_val_every_n_epoch=null"]
        short_fit(Switch(), [*words, "--checkpoint.every_n_minutes=0", *rest])
    print_comparison(f"a step of {config}", turns, "ms", 1000)


def compare_starts(config: str, rounds: int, rest: list[str]) -> None:
    """Time to the first step with nothing cached and with everything cached, against the import of Lightning alone."""
    sides: dict[str, list[Moment]] = defaultdict(list)
    memory: dict[str, int] = defaultdict(int)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            words = ["--config", config, f"--runs_dir={folder}/runs", f"--data.cache_dir={folder}/cache", *rest]
            for name, program in (
                ("first step, cold", [FIRST_STEP, *words]),
                ("first step, cached", [FIRST_STEP, *words]),
                ("import lightning.pytorch", [IMPORTS]),
            ):
                start = Moment.now()
                done = subprocess.run([sys.executable, "-c", *program], capture_output=True, text=True)
                wall = Moment.now().since(start).wall
                if done.returncode != 0:
                    raise SystemExit(f"the timed process failed:\n{done.stderr[-2000:]}")
                cpu, kilobytes = json.loads(done.stdout.strip().splitlines()[-1])
                sides[name].append(Moment(wall, cpu))
                memory[name] = max(memory[name], kilobytes)
    print_comparison(f"start of {config}", sides, "s")
    print("  most memory: " + ", ".join(f"{name} {kilobytes / 1024:.0f} MB" for name, kilobytes in memory.items()))
