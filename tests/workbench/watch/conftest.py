"""Tiny models, tiny data, and a trainer that says nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from project.data.batch import Batch
from workbench.findings import History
from workbench.watch.recorder import recorder_of


class Restorer(L.LightningModule):
    """A network, the mean squared error, and one optimizer."""

    def __init__(self, network: nn.Module, lr: float = 0.01, optimizer: type = torch.optim.SGD, **more: Any) -> None:
        super().__init__()
        self.network = network
        self.make = lambda parameters: optimizer(parameters, lr=lr, **more)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = (self(batch.input) - batch.target).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", (self(batch.input) - batch.target).square().mean())

    def configure_optimizers(self) -> Any:
        return self.make([p for p in self.network.parameters() if p.requires_grad])


def pair(seed: int, count: int = 2, size: tuple[int, int] = (10, 12), channels: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(count, channels, *size, generator=generator)
    noisy = target + 0.1 * torch.randn(target.shape, generator=generator)
    return Batch(noisy, target, noisy, *[torch.arange(count)] * 2)


def loader(first: int, batches: int, **more: Any) -> DataLoader:
    return DataLoader([pair(first + n, **more) for n in range(batches)], batch_size=None)


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., History]:
    """Train on the CPU with these callbacks; gives what was measured. The trainer is ``fit.trainer``."""

    def run(model: L.LightningModule, *callbacks: Any, **options: Any) -> History:
        data = options.pop("data", None) or (loader(0, 12), loader(100, 2, size=(30, 34)))
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        quiet |= {"accelerator": "cpu", "num_sanity_val_steps": 0, "max_epochs": 1, "log_every_n_steps": 3}
        quiet["logger"] = CSVLogger(tmp_path, name="", version="run")
        trainer = run.trainer = L.Trainer(callbacks=list(callbacks), **{**quiet, **options})
        recorder = recorder_of(trainer, model)
        trainer.fit(model, *data)
        recorder.flush()
        return recorder.history

    run.folder = tmp_path / "run"
    return run


@pytest.fixture
def make_restorer() -> type[Restorer]:
    return Restorer


@pytest.fixture
def make_pair() -> Callable[..., Batch]:
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
