"""Losses that count wrongly, first outputs that are far off, and models that cannot overfit a few samples."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from project.models import GANColorizer, ImageRestorer
from project.models.losses import Charbonnier, Hinge, LeastSquares, PSNRLoss, WassersteinGP
from workbench.findings.checks.learning import CannotOverfit


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(CannotOverfit, "steps", 120)
    monkeypatch.setattr(CannotOverfit, "pixels", 4 * 32 * 32)


class Summed(nn.Module):
    def forward(self, output, target):
        return (output - target).abs().flatten(1).mean(1).sum()


class Multiplied(ImageRestorer):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * len(batch.input)


SUMS = {
    "mse": lambda kit: kit.restorer(loss=nn.MSELoss(reduction="sum")),
    "own": lambda kit: kit.restorer(loss=Summed()),
    "step": lambda kit: Multiplied(kit.small_unet()),
    "gan": lambda kit: kit.colorizer(reconstruction=nn.L1Loss(reduction="sum")),
}


@pytest.mark.planted("loss-not-mean")
@pytest.mark.parametrize("kind", SUMS)
def test_a_loss_that_is_a_sum(faults_of, kit, kind):
    assert faults_of(SUMS[kind](kit)) == ["loss-not-mean"]


@pytest.mark.healthy
@pytest.mark.parametrize("loss", [nn.MSELoss(), Charbonnier(), PSNRLoss(), nn.SmoothL1Loss()])
def test_losses_that_are_means(faults_of, kit, loss):
    assert faults_of(kit.restorer(loss=loss, l1=1e-4)) == []


@pytest.mark.planted("initial-loss")
@pytest.mark.parametrize("how", ["bias", "tail"])
def test_a_first_output_that_is_far_off(faults_of, kit, how):
    network = kit.small_unet(residual=False)
    with torch.no_grad():
        if how == "bias":
            network.tail.bias.fill_(12.0)
        else:
            network.tail.weight.mul_(70)  # 7 times what the fan-in asks for: not yet a fault of scale
            network.head.weight.mul_(6)
    assert faults_of(network) == ["initial-loss"]


class Detached(ImageRestorer):
    def training_step(self, batch, batch_idx):
        return self.loss(self(batch.input).detach(), batch.target).requires_grad_()


class Elsewhere(ImageRestorer):
    def training_step(self, batch, batch_idx):
        return self.loss(self(batch.input), torch.rand_like(batch.target))


class Upwards(ImageRestorer):
    def training_step(self, batch, batch_idx):
        return -super().training_step(batch, batch_idx)


class Unmoved(ImageRestorer):
    """Its optimizer holds everything and never steps."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer_closure()
        self.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.increment_completed()


class Deaf(nn.Module):
    """A network whose output its weights do not move."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).detach() + 0 * sum(p.sum() for p in self.network.parameters())


@pytest.mark.planted("cannot-overfit")
@pytest.mark.parametrize("kind", [Detached, Elsewhere, Upwards, Unmoved, Deaf])
def test_a_model_that_cannot_learn(faults_of, kit, monkeypatch, kind):
    monkeypatch.setattr(CannotOverfit, "steps", 40)
    model = Deaf(kit.small_unet()) if kind is Deaf else kind(kit.small_unet(norm="batch"))
    assert faults_of(model, overfit=True) == ["cannot-overfit"]


@pytest.mark.parametrize(
    "optimizer",
    [partial(torch.optim.SGD, lr=1e-6), partial(torch.optim.Adam, lr=1e-7), partial(torch.optim.Adam, lr=3.0)],
    ids=["sgd", "low", "high"],
)
def test_a_rate_that_is_far_off_is_a_note(look, kit, optimizer):
    found = look(kit.restorer(optimizer=optimizer), overfit=True)
    assert kit.faults(found) == []
    assert "cannot-overfit" in kit.notes(found)


def with_loss(kit, adversarial):
    return kit.colorizer(discriminator=kit.critic(norm="instance"), adversarial=adversarial)


CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=2e-3)
HEALTHY = {
    "plain": lambda kit: kit.restorer(),
    "decayed": lambda kit: kit.restorer(optimizer=partial(torch.optim.AdamW, lr=2e-3, weight_decay=30.0)),
    "penalized": lambda kit: kit.restorer(l2=10.0),
    "dropout": lambda kit: kit.restorer(kit.small_unet(dropout=0.5)),
    "direct": lambda kit: kit.restorer(kit.small_unet(residual=False, norm="batch"), loss=nn.MSELoss()),
    "scheduled": lambda kit: kit.restorer(scheduler=CYCLE),
    "gan": lambda kit: kit.colorizer(),
    "gan-alone": lambda kit: kit.colorizer(discriminator=None),
    "gan-stages": lambda kit: kit.colorizer(generator_epochs=2, critic_epochs=1),
    "gan-scheduled": lambda kit: kit.colorizer(generator_scheduler=CYCLE),
    "gan-hinge": lambda kit: with_loss(kit, Hinge()),
    "gan-squares": lambda kit: with_loss(kit, LeastSquares()),
    "gan-wasserstein": lambda kit: with_loss(kit, WassersteinGP()),
}


@pytest.mark.healthy
@pytest.mark.parametrize("kind", HEALTHY)
def test_models_that_can_learn(look, kit, kind):
    found = look(HEALTHY[kind](kit), overfit=True)
    assert kit.faults(found) == []
    assert "cannot-overfit" not in kit.notes(found)


def test_the_checks_leave_the_model_as_it_was(kit, make_data):
    context = kit.context_of(kit.restorer(kit.small_unet(norm="batch")), make_data())
    before = {name: value.clone() for name, value in context.model.state_dict().items()}
    kit.check(context, overfit=True)
    assert all(torch.equal(value, before[name]) for name, value in context.model.state_dict().items())


class Swapped(GANColorizer):
    def discriminator_step(self, condition, real, fake, counts):
        return super().discriminator_step(condition, fake, real, counts)


@pytest.mark.planted("cannot-overfit")
@pytest.mark.parametrize("how", ["swapped", "deaf"])
def test_a_discriminator_that_does_not_learn(look, kit, how):
    model = kit.colorizer(Swapped) if how == "swapped" else kit.colorizer(discriminator=Deaf(kit.critic()))
    found = look(model, overfit=True)
    assert kit.faults(found) == ["cannot-overfit"]
    assert found[-1].where == "discriminator"
