"""The comparisons: a training step against a bare PyTorch loop, with and without monitors, the start of a run, the
loader, a trained network in ONNX Runtime."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import Callback
from PIL import Image
from skimage.data import coffee
from timing import compare, now, timed
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import project.__main__  # noqa: F401 its data and callbacks are the defaults
from project.data import ImageDataModule
from project.data.images import decode
from project.inference.common import input_channels
from project.inference.export import ExportNetwork, write_onnx
from workbench.checkpoint import load_model, read_checkpoint
from workbench.cli import CommandLine
from workbench.console import silence_warnings
from workbench.parser import expand_args
from workbench.watch import Watch

WARMUP = 10  # steps before the clock starts


def time_fit(words: list[str], warm_up: int, steps: int, monitors: bool = True) -> tuple[np.ndarray, CommandLine]:
    """Time of a step of ``python -m project fit`` behind those that warm up, and what the command line has built."""
    ends = {0: now()}

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            ends[trainer.global_step] = now()

    class Fit(CommandLine):
        def fit(self, model: Any, **kwargs: Any) -> None:
            callbacks = [one for one in self.trainer.callbacks if monitors or not isinstance(one, Watch)]
            self.trainer.callbacks = [*callbacks, Clock()]
            self.trainer.fit(model, **kwargs)

    silence_warnings()
    endless = ["--trainer.max_time=null", "--trainer.max_epochs=-1", f"--trainer.max_steps={warm_up + steps + 1}"]
    with tempfile.TemporaryDirectory() as runs:
        cli = Fit(expand_args(["fit", *words, *endless, "--runs_dir", runs, "--wandb=off"]))
    return (ends[warm_up + steps] - ends[warm_up]) / steps, cli


def compare_steps(config: str, steps: int, rounds: int, rest: list[str]) -> None:
    """Time `fit` with everything on and the bare loop in turns, each after steps that warm it up; print the ratios.

    The bare loop has its crops in memory, makes the pairs and steps the optimizers: no loader, logging, averaging,
    clipping or validation.
    """
    arguments = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["model"].get("init_args", {})
    stages = [key for key in ("generator_epochs", "critic_epochs") if key in arguments]
    words = ["--config", config, "--trainer.limit_val_batches=0"]
    words += [f"--model.init_args.{key}=0" for key in stages]  # both networks train, as in the bare loop
    built: list[Any] = []

    def everything_on() -> np.ndarray:
        time, cli = time_fit([*words, *rest], WARMUP, steps)
        built[:] = cli.model, cli.datamodule
        return time

    def bare_loop() -> np.ndarray:
        model, data = built
        raw = cycle(list(islice(data.train_dataloader(), 8)))
        step = (_bare_gan if hasattr(model, "generator") else _bare_restorer)(model)

        def run(number: int) -> int:
            for _ in range(number):
                step(data.make_batch(next(raw), training=True))
            return number

        run(WARMUP)
        return timed(lambda: run(steps))

    sides = {"everything on": everything_on, "bare loop": bare_loop}
    compare(f"a step of {Path(config).name}", sides, rounds, "ms", 1000, warm_up=0)


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
    """Time a step of `fit` with and without the monitors, one validation included.

    As many steps warm up as are timed: the first ones are looked at more often than the others.
    """
    words = ["--config", config, f"--trainer.val_check_interval={steps}", "--trainer.check_val_every_n_epoch=null"]
    words += ["--checkpoint.every_n_minutes=0", *rest]
    sides = {
        "monitors on": lambda: time_fit(words, steps, steps)[0],
        "monitors off": lambda: time_fit(words, steps, steps, monitors=False)[0],
    }
    compare(f"a step of {Path(config).name}", sides, rounds, "ms", 1000, warm_up=0)


def compare_starts(config: str, rounds: int, rest: list[str]) -> None:
    """Time of a run of one step and one validation image, the images indexed before, against importing Lightning."""

    with tempfile.TemporaryDirectory() as cache:
        words = ["fit", "--config", config, "--trainer.fast_dev_run=1", "--data.cache_dir", cache, *rest]
        programs = {
            "fit, one step": ["-m", "project", *words],
            "import lightning.pytorch": ["-c", "import lightning.pytorch"],
        }
        run = partial(subprocess.check_call, stdout=subprocess.DEVNULL)
        sides = {name: partial(timed, partial(run, [sys.executable, *words])) for name, words in programs.items()}
        compare(f"start of {Path(config).name}", sides, rounds, "s", 1)


def compare_loaders(rounds: int) -> None:
    """Photographs (481 x 321 JPEG, crops of 64, flips), one process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        (root / "class").mkdir(parents=True)
        for number in range(150):
            photograph = Image.fromarray(coffee()).rotate(2 * number).resize((481, 321))
            photograph.save(root / "class" / f"{number:03d}.jpg", quality=90)
        paths = [str(path) for path in root.glob("*/*")]
        runs = {
            "loader, pixels kept": _loader(root, 2.0),
            "loader, decoding": _loader(root, 0.0),
            "Dataset of torchvision": _plain(root),
            "decoding alone": lambda: sum(decode(path, 3) is not None for path in paths),
        }
        sides = {name: partial(timed, run) for name, run in runs.items()}
        compare("an image, 481x321 JPEG, crops of 64", sides, rounds, "us", 1e6)


def _loader(root: Path, cache_gb: float) -> Callable[[], int]:
    data = ImageDataModule(
        root=str(root),
        crop=64,
        batch_size=16,
        num_workers=0,
        fractions=(1.0, 0.0, 0.0),
        decoded_cache_gb=cache_gb,
        cache_dir=str(root.parent / f"cache-{cache_gb}"),
    )
    data.prepare_data()
    data.setup("test")
    loader = data.train_dataloader()
    return lambda: sum(len(batch.image) for batch in loader)


def _plain(root: Path) -> Callable[[], int]:
    flips = v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()
    images = ImageFolder(root, v2.Compose([v2.RandomCrop(64), *flips, v2.PILToTensor()]))
    loader = DataLoader(images, batch_size=16, shuffle=True)
    return lambda: sum(len(batch) for batch, _ in loader)


def compare_inference(path: str, rounds: int) -> None:
    """Print the time of an image of 256 x 256 pixels, alone and in batches of 8."""
    checkpoint = read_checkpoint(path)
    network = ExportNetwork(load_model(checkpoint)).eval()
    channels = input_channels(network.network, checkpoint.config.get("data") or {})
    with tempfile.TemporaryDirectory() as folder:
        onnx = write_onnx(network, torch.rand(2, channels, 66, 90), Path(folder, "network.onnx"))
    for batch in (1, 8):
        x = torch.rand(batch, channels, 256, 256)
        functions = {"ONNX Runtime": onnx, "PyTorch": network}
        sides = {name: partial(timed, partial(_call, function, x)) for name, function in functions.items()}
        title = f"an image of 256 x 256, batches of {batch}, CPU, {torch.get_num_threads()} threads"
        compare(title, sides, rounds, "ms", 1000)


@torch.inference_mode()
def _call(function: Callable[[torch.Tensor], object], x: torch.Tensor) -> int:
    for _ in range(5):
        function(x)
    return 5 * len(x)
