from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from workbench.callbacks.clipping import GradientClipping
from workbench.watch.gradient_flow import GradientFlow


class One(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 1, 3))

    def training_step(self, batch, batch_idx):
        return self.network(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.2)


class Doubles(L.Callback):
    """Changes the gradients after they were measured."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for parameter in pl_module.parameters():
            parameter.grad.mul_(2)


def train(*callbacks):
    model = One()
    generator = torch.Generator().manual_seed(3)
    batches = [torch.rand(2, 1, 9, 12, generator=generator) for _ in range(6)]
    trainer = L.Trainer(
        callbacks=list(callbacks), max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(batches, batch_size=None))
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_norms_that_two_callbacks_want_are_measured_once(monkeypatch):
    calls, norm = [], torch._foreach_norm
    monkeypatch.setattr(torch, "_foreach_norm", lambda *args: calls.append(1) or norm(*args))
    watched = train(GradientFlow(1), GradientClipping(0.01))
    assert len(calls) == 6
    assert all(torch.equal(a, b) for a, b in zip(watched, train(GradientClipping(0.01)), strict=True))
    assert len(calls) == 12, "alone, the one that clips measures itself"


@pytest.mark.parametrize("limit", [0.01, 0.05])
def test_what_changes_the_gradients_in_between_is_seen(limit):
    watched = train(GradientFlow(1), Doubles(), GradientClipping(limit))
    assert all(torch.equal(a, b) for a, b in zip(watched, train(Doubles(), GradientClipping(limit)), strict=True))
