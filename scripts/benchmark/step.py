"""A training step with everything on, against the same networks in a bare PyTorch loop."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timing import Moment, print_comparison

WARMUP = 15


def compare_steps(config: str, steps: int, rounds: int, rest: list[str]) -> None:
    """Time `fit` with everything on, with every callback off, and the bare loop, in turns; print the ratios.

    The bare loop cuts crops out of arrays in memory, flips them, makes the pair and steps the optimizers: no logging,
    averaging, clipping or validation.
    """
    import project.__main__  # noqa: F401 its data and callbacks are the defaults
    from workbench.cli import CALLBACKS, silence_warnings
    from workbench.main import PROGRAM

    silence_warnings()
    sides: dict[str, list[Moment]] = {"everything on": [], "callbacks off": [], "bare loop": []}
    for _ in range(rounds):
        for name, callbacks in (("everything on", None), ("callbacks off", {})):
            with tempfile.TemporaryDirectory() as runs:
                shown, own = dict(CALLBACKS), PROGRAM.callbacks
                if callbacks is not None:
                    CALLBACKS.clear()
                    PROGRAM.callbacks = {}
                try:
                    time, cli = _time_fit(config, steps, runs, rest, callbacks is None)
                finally:
                    CALLBACKS.update(shown)
                    PROGRAM.callbacks = own
            sides[name].append(time)
        sides["bare loop"].append(_time_bare(cli, steps))
    print_comparison(f"a step of {config}", sides, "ms", 1000)


def _time_fit(config: str, steps: int, runs: str, rest: list[str], everything: bool) -> tuple[Moment, Any]:
    """One step of the real `fit`; validation and start-up left out."""
    import yaml
    from lightning.pytorch import Callback

    from workbench.cli import CommandLine
    from workbench.parser import expand_args

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == WARMUP:
                self.start = Moment.now()
            elif trainer.global_step == WARMUP + steps:
                self.end = Moment.now()

    clock = Clock()

    class Timed(CommandLine):
        def instantiate_trainer(self, **kwargs: Any) -> Any:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(clock)
            return trainer

        def fit(self, model: Any, **kwargs: Any) -> None:
            self.trainer.fit(model, **kwargs)

    whole = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    stages = [key for key in ("generator_epochs", "critic_epochs") if key in whole["model"].get("init_args", {})]
    alone = [f"--model.init_args.{key}=0" for key in stages]  # both networks train, as they do in the bare loop
    if not everything:  # a configuration may not name keys that are not there
        alone.append("--trainer.enable_progress_bar=false")  # else Lightning shows one of its own
        kept = {key: value for key, value in whole.items() if key in ("model", "data", "trainer")}
        config = f"{runs}/config.yaml"
        Path(config).write_text(yaml.safe_dump(kept), encoding="utf-8")
    words = ["fit", "--config", config, "--runs_dir", runs, f"--trainer.max_steps={WARMUP + steps + 1}", *alone, *rest]
    words += ["--trainer.max_time=null", "--trainer.limit_val_batches=0", "--trainer.max_epochs=-1", "--wandb=off"]
    cli = Timed(expand_args(words))
    return clock.end.since(clock.start, steps), cli


def _time_bare(cli: Any, steps: int) -> Moment:
    """One step of plain PyTorch over the same networks, crops and pairs."""
    import torch

    data, model = cli.datamodule, cli.model
    batches = _pairs(data)
    step = _bare_gan(model) if hasattr(model, "generator") else _bare_restorer(model)
    for number in range(WARMUP + steps):
        if number == WARMUP:
            start = Moment.now()
        with torch.no_grad():
            pair = next(batches)
        step(pair)
    return Moment.now().since(start, steps)


def _bare_restorer(model: Any) -> Any:
    import torch

    network = copy.deepcopy(model.network).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def step(pair: Any) -> None:
        loss = (network(pair.input) - pair.target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _bare_gan(model: Any) -> Any:
    import torch

    generator, discriminator = (copy.deepcopy(part).train() for part in (model.generator, model.discriminator))
    adversarial, space, weight = model.adversarial, model.space, model.reconstruction_weight
    optimizers = [torch.optim.Adam(part.parameters(), 1e-4) for part in (generator, discriminator)]

    def step(pair: Any) -> None:
        real = space.encode(pair.target)
        fake = generator(pair.input)
        loss = adversarial.discriminator(
            discriminator(torch.cat([pair.input, real], 1)), discriminator(torch.cat([pair.input, fake.detach()], 1))
        )
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        discriminator.requires_grad_(False)
        loss = adversarial.generator(discriminator(torch.cat([pair.input, fake], 1)))
        loss = loss + weight * (fake - real).abs().mean()
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        discriminator.requires_grad_(True)

    return step


def _pairs(data: Any) -> Iterator[Any]:
    """Batches of random crops of the training images, as the pair maker turns them into input and target."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    store = data.dataset("train").store
    pictures = [np.array(store[number]) for number in range(len(store))]
    partners = [np.array(store.target(number)) for number in range(len(store))] if store.has_targets else None
    size, crop = data.hparams.batch_size, data.hparams.crop
    index = torch.zeros(size, dtype=torch.int64)
    while True:
        chosen = rng.integers(len(pictures), size=size)
        cut = [_cut(pictures[chosen[0]].shape, crop, rng) for _ in chosen] if crop is None else None
        rows: list[list[Any]] = [[], []]
        for place, number in enumerate(chosen):
            window = cut[place] if cut else _cut(pictures[number].shape, crop, rng)
            for row, source in zip(rows, (pictures, partners), strict=True):
                if source is not None:
                    row.append(source[number][window])
        # Channels last in memory, as the networks like it.
        image, target = (
            torch.from_numpy(np.stack(row)).permute(0, 3, 1, 2).float() / 255 if row else None for row in rows
        )
        yield data.pairs(image, target, index, index, True)


def _cut(shape: tuple[int, ...], crop: int | None, rng: Any) -> tuple[slice, slice]:
    height, width = shape[:2]
    side_y, side_x = crop or height, crop or width
    top, left = int(rng.integers(height - side_y + 1)), int(rng.integers(width - side_x + 1))
    step = 1 if rng.random() < 0.5 else -1  # mirrored half of the time
    columns = slice(left, left + side_x) if step == 1 else slice(left + side_x - 1, left - 1 if left else None, -1)
    return slice(top, top + side_y), columns
