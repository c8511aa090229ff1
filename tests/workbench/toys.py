"""What several tests are made of: trainers, models, batches, sections of configurations, tables, kills."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from scripts import soak


def quiet_trainer(*callbacks: L.Callback, **options: Any) -> L.Trainer:
    """On the CPU, for one epoch unless `max_steps` are given; saves what its callbacks save."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    quiet["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    quiet |= {"accelerator": "cpu", "max_epochs": None if "max_steps" in options else 1}
    return L.Trainer(callbacks=list(callbacks), **{**quiet, **options})


class OneWeight(L.LightningModule):
    """Its loss is its weight, which therefore falls by 0.1 in each step."""

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1) if weight is None else weight)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], lr=0.1)


class Pair(NamedTuple):
    input: Tensor
    target: Tensor
    baseline: Tensor


class Restorer(L.LightningModule):
    """A network, the mean squared error, and one optimizer."""

    def __init__(self, network: nn.Module, lr: float = 0.01, optimizer: type = torch.optim.SGD, **more: Any) -> None:
        super().__init__()
        self.network = network
        self.make = lambda parameters: optimizer(parameters, lr=lr, **more)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        loss = (self(batch.input) - batch.target).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Pair, batch_idx: int) -> None:
        self.log("val/loss", (self(batch.input) - batch.target).square().mean())

    def configure_optimizers(self) -> Any:
        return self.make([p for p in self.network.parameters() if p.requires_grad])


def pair(seed: int, count: int = 2, size: tuple[int, int] = (10, 12), channels: int = 1) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(count, channels, *size, generator=generator)
    noisy = target + 0.1 * torch.randn(target.shape, generator=generator)
    return Pair(noisy, target, noisy)


def loader(first: int, batches: int, **more: Any) -> DataLoader:
    return DataLoader([pair(first + n, **more) for n in range(batches)], batch_size=None)


def convs(*between: nn.Module, seed: int = 3, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    between = between or (nn.ReLU(),)
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), *between, nn.Conv2d(width, 1, 3, padding=1))


def section(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def gan_section(generator: dict, optimizer: dict, judge: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A model's section: a tiny GAN that colors in RGB; `judge` are options of its discriminator."""
    judge = section("project.networks.PatchGAN", **{"in_channels": 6, "width": 4, "layers": 2, **judge})
    parts = {"space": "rgb", "reconstruction_weight": 5.0, "generator": generator, "discriminator": judge}
    parts |= {"generator_optimizer": optimizer, "discriminator_optimizer": optimizer}
    return section("project.models.GANColorizer", **parts, **options)


def load(run: Path, name: str = "last") -> dict[str, Any]:
    """What a checkpoint of a run's folder holds."""
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_column(run: Path, key: str) -> list[float]:
    """The values that a run logged under a name."""
    return [float(row[key]) for row in read_rows(run / "metrics.csv") if row.get(key)]


def assert_same(one: Path, other: Path) -> None:
    """Compares what two finished runs have left, to the last bit, as `make soak` does."""
    assert soak.compare(one, other) == []


class Killed(BaseException):
    """What SIGKILL leaves behind can be had without a second process: nothing is saved on the way out."""


class KillAt(L.Callback):
    """Raises in a hook, once it is called at a step."""

    hook, step = "", -1


def _raise_in(name: str) -> Callable[..., None]:
    def hook(self: KillAt, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if self.hook == name and trainer.global_step >= self.step:
            KillAt.hook = ""
            raise Killed

    return hook


for _name in ("on_train_batch_end", "on_validation_batch_start", "on_validation_end", "on_train_end", "on_test_start"):
    setattr(KillAt, _name, _raise_in(_name))
