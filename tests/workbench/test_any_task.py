"""Tasks that are no images through the real commands: by class path, without a monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from project.__main__ import main
from tests.workbench.toys import load, read_column, read_rows, section
from workbench.checkpoint import load_model, read_checkpoint


class Points(LightningDataModule):
    """Two classes of points; batches are dicts."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        self.data = [{"features": point, "label": (point.sum() > 0).long()} for point in x]
        if stage == "test":  # as in Lightning's own examples: not there before its stage
            self.test_data = self.data

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.data, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.data, self.hparams.batch_size)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test_data, self.hparams.batch_size)


class Classifier(LightningModule):
    """One automatic optimizer; it logs an accuracy, and nothing that is called PSNR."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def _loss(self, batch: Any, split: str) -> Tensor:
        x, y = batch.values() if isinstance(batch, dict) else batch
        output = self(x)
        self.log(f"{split}/accuracy", (output.argmax(1) == y).float().mean())
        return F.cross_entropy(output, y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch, "val"))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/loss", self._loss(batch, "test"))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Series(LightningDataModule):
    """Series and their next value; training only."""

    def __init__(self, length: int = 6) -> None:
        super().__init__()
        self.length = length

    def train_dataloader(self) -> DataLoader:
        series = torch.sin(torch.arange(40 * self.length).float()).view(40, 1, self.length)
        return DataLoader(TensorDataset(series, series.mean(2)), 8, shuffle=True)


class Alone(Classifier):
    """Brings its own training data."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.eye(4), torch.tensor([0, 1, 0, 1])), 2)


class TwoOptimizers(LightningModule):
    """Manual optimization: encoder and head have an optimizer each; no validation, no test."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder, self.head = nn.Conv1d(1, 4, 3), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).relu().mean(2))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = F.mse_loss(self(batch[0]), batch[1])
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        first.step()
        second.step()
        self.log("train/loss", loss)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(part.parameters(), lr=0.02) for part in (self.encoder, self.head)]


TASKS = {
    "dicts": {"model": section(f"{__name__}.Classifier"), "data": section(f"{__name__}.Points")},
    "series, manual": {"model": section(f"{__name__}.TwoOptimizers"), "data": section(f"{__name__}.Series")},
}


def config(task: str) -> str:
    trainer = {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1}
    Path("task.yaml").write_text(yaml.safe_dump({**TASKS[task], "trainer": trainer}))
    return "task.yaml"


@pytest.mark.parametrize("task", TASKS)
def test_check_fit_resume_and_test(task, capsys):
    manual = "manual" in task
    assert main(["check", "--config", config(task)]) == 0, capsys.readouterr().out
    assert main(["fit", "--config", config(task), "--wandb", "off"]) == 0
    run = Path("runs/task/latest").resolve()
    printed = capsys.readouterr().out
    assert "Newest checkpoint" in printed
    assert ("accuracy" in printed) != manual
    assert bool(read_column(run, "test/loss")) != manual
    measured = [] if manual else [row["measure"] for row in read_rows(run / "measurements.csv")]
    assert ("dead" in measured) != manual, "on samples of the validation split"

    best = run / "checkpoints" / "best.ckpt"
    checkpoint = read_checkpoint(best)
    assert checkpoint.data_class == TASKS[task]["data"]["class_path"]
    assert type(load_model(checkpoint)).__name__ == TASKS[task]["model"]["class_path"].rpartition(".")[2]
    before = load(run)["global_step"]
    Path("more.yaml").write_text("trainer: {max_epochs: 3}")
    words = ["--name", "task", "--resume", "latest", "--wandb", "off", "--config", "more.yaml"]
    assert main(["fit", *words]) == 0
    assert load(run)["global_step"] == 3 * before // 2
    assert Path("runs/task/latest").resolve() == run

    if not manual:
        assert main(["test", "--ckpt_path", str(best), "--data.batch_size", "5"]) == 0
        (tested,) = Path("runs/task").glob("*-test")
        settings = yaml.safe_load((tested / "config.yaml").read_text())
        assert settings["data"]["init_args"]["batch_size"] == 5


def test_a_module_may_bring_its_own_data():
    trainer = {"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0}
    tree = {"model": {"class_path": f"{__name__}.Alone"}, "data": None, "trainer": trainer}
    Path("alone.yaml").write_text(yaml.safe_dump(tree))
    assert main(["fit", "--config", "alone.yaml", "--wandb", "off"]) == 0
    assert read_checkpoint("runs/alone/latest/checkpoints/last.ckpt").config["data"] is None
