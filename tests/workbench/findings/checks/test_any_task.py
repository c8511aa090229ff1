"""The checks on tasks of other kinds: tuples and dicts as batches, class targets, several optimizers, no hooks."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from workbench.findings.checks.context import concatenate
from workbench.findings.engine import Passed, Skipped


class Data(LightningDataModule):
    """Three classes of points, or a wave over eight steps, in batches of a kind."""

    def __init__(self, kind: str, shuffle: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(96, 8, generator=generator)
        classes = self.inputs[:, :3].argmax(1)
        self.targets = self.inputs.roll(1, 1) * 2 if kind == "series" else classes
        self.kind, self.shuffle = kind, shuffle

    def train_dataloader(self):
        def as_dict(rows):
            return {"points": torch.stack([x for x, _ in rows]), "label": torch.stack([y for _, y in rows])}

        collate = as_dict if self.kind == "dict" else None
        return DataLoader(TensorDataset(self.inputs, self.targets), 8, shuffle=self.shuffle, collate_fn=collate)


class Classifier(LightningModule):
    def __init__(self, way=lambda h: h) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.way = way

    def forward(self, x):
        return self.way(self.body(x))

    def training_step(self, batch, batch_idx):
        x, y = batch.values() if isinstance(batch, dict) else batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class TwoOptimizers(LightningModule):
    """A regression by hand, with a scheduler that it steps itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder, self.decoder = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return self.decoder(self.encoder(x).tanh())

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.mse_loss(self(x), y)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=1e-2) for part in (self.encoder, self.decoder)]


@pytest.mark.healthy
@pytest.mark.parametrize("kind", ["tuple", "dict", "series"])
def test_a_healthy_model_of_another_task(kit, kind):
    found = kit.check(kit.context_of(TwoOptimizers() if kind == "series" else Classifier(), Data(kind)), overfit=True)
    assert found.faults == [] and found.notes == []
    assert not [outcome for outcome in found if isinstance(outcome, Skipped) and "could not" in outcome.reason]
    for code in ("cannot-overfit", "input-ignored", "batch-mixing", "parameters-not-optimized"):
        assert isinstance(found.of(code), Passed)


def changed(model, change):
    change(model)
    return model


def half_optimized(model):
    model.configure_optimizers = lambda: torch.optim.Adam(model.encoder.parameters())


FAULTY = {
    "frozen-parameters": lambda: changed(Classifier(), lambda model: model.body[0].requires_grad_(False)),
    "weights-constant": lambda: changed(Classifier(), lambda model: nn.init.constant_(model.body[0].weight, 0.1)),
    "parameters-not-optimized": lambda: changed(TwoOptimizers(), half_optimized),
    "batch-mixing": lambda: Classifier(lambda h: h - h.mean(0)),
    "input-ignored": lambda: Classifier(lambda h: 0 * h + 1),
    "eval-not-deterministic": lambda: Classifier(F.dropout),
    "cannot-overfit": lambda: Classifier(lambda h: h.detach().requires_grad_()),
}


@pytest.mark.planted
@pytest.mark.parametrize(("code", "make"), FAULTY.items(), ids=FAULTY)
def test_a_fault_of_another_task(kit, code, make):
    data = Data("series" if code == "parameters-not-optimized" else "dict")
    assert kit.check(kit.context_of(make(), data), overfit=True).faults == [code]


@pytest.mark.planted("batch-repeated")
@pytest.mark.parametrize("loaders", ["data module", "model"])
def test_an_order_that_is_not_shuffled(kit, loaders):
    model, data = Classifier(), Data("tuple", shuffle=False)
    if loaders == "model":
        model.train_dataloader = data.train_dataloader
    assert kit.check(kit.context_of(model, data if loaders == "data module" else None)).faults == ["batch-repeated"]


def test_two_batches_as_one_keep_the_order_of_their_entries():
    batch = {name: torch.zeros(2) for name in "zyxwvuts"}
    assert list(concatenate(batch, batch)) == list(batch)
