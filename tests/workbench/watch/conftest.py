"""Tiny models, tiny data, and a quiet trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from workbench.findings import History
from workbench.watch import Watch


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


class Keep(L.Callback):
    """What a run forgets at its end: its measurements and the samples of the probe."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.history = History() if self.watch.recorder is None else self.watch.recorder.history
        self.batch = None if self.watch.recorder is None else self.watch.probe.batch


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., History]:
    """Train on the CPU while watched, with these arguments of Watch and options of the trainer; returns what was
    measured. Afterwards there are ``fit.watch``, ``fit.trainer``, ``fit.batch`` (the probe's samples), ``fit.folder``.
    """

    def run(model: L.LightningModule, callbacks: tuple[Any, ...] = (), data: Any = None, **options: Any) -> History:
        of_watch = {k: options.pop(k) for k in ("every_n_steps", "every_n_validations", "on_fault") if k in options}
        watch = run.watch = Watch(**{"every_n_steps": 1, **of_watch})
        keep = Keep(watch)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        quiet |= {"accelerator": "cpu", "num_sanity_val_steps": 0, "max_epochs": 1, "log_every_n_steps": 3}
        quiet["logger"] = CSVLogger(tmp_path, name="", version="run")
        run.trainer = L.Trainer(callbacks=[watch, *callbacks, keep], **{**quiet, **options})
        run.trainer.fit(model, *(data or (loader(0, 12), loader(100, 2, size=(30, 34)))))
        run.batch = keep.batch
        return keep.history

    run.folder = tmp_path / "run"
    return run


@pytest.fixture
def make_restorer() -> type[Restorer]:
    return Restorer


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    return pair


@pytest.fixture
def make_loader() -> Callable[..., DataLoader]:
    return loader


@pytest.fixture
def convs() -> Callable[..., nn.Sequential]:
    def make(*between: nn.Module, seed: int = 3, width: int = 6) -> nn.Sequential:
        torch.manual_seed(seed)
        between = between or (nn.ReLU(),)
        return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), *between, nn.Conv2d(width, 1, 3, padding=1))

    return make
