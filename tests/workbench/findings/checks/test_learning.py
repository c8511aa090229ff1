"""Losses that count wrongly, first answers that are far off, and models that cannot learn a handful of images."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from project.data.pairs import LinesToColor, SpatialHints
from project.models import GANColorizer, ImageRestorer
from project.models.losses import Charbonnier, Hinge, LeastSquares, PSNRLoss, WassersteinGP
from project.networks import PatchGAN, UNet
from workbench.findings.checks import learning

LINES = {"pairs": LinesToColor(hints=SpatialHints())}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(learning.CannotOverfit, "steps", 120)
    monkeypatch.setattr(learning.CannotOverfit, "pixels", 4 * 32 * 32)


class Summed(nn.Module):
    def forward(self, output, target):
        return (output - target).abs().flatten(1).mean(1).sum()


@pytest.mark.planted("loss-not-mean")
@pytest.mark.parametrize("loss", [nn.MSELoss(reduction="sum"), nn.L1Loss(reduction="sum"), Summed()])
def test_a_loss_that_is_a_sum(look, kit, loss):
    assert kit.faults(look(model=kit.restorer(loss=loss))) == ["loss-not-mean"]


class Multiplied(ImageRestorer):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * len(batch.input)


@pytest.mark.planted("loss-not-mean")
def test_a_step_that_multiplies_by_the_batch(look, kit):
    assert kit.faults(look(model=Multiplied(kit.small_unet()))) == ["loss-not-mean"]


@pytest.mark.healthy
@pytest.mark.parametrize("loss", [nn.MSELoss(), Charbonnier(), PSNRLoss(), nn.SmoothL1Loss()])
def test_losses_that_are_means(look, kit, loss):
    assert kit.faults(look(model=kit.restorer(loss=loss, l1=1e-4))) == []


@pytest.mark.planted("loss-not-mean")
def test_a_game_with_a_summed_reconstruction(look, kit):
    found = look(model=kit.colorizer(reconstruction=nn.L1Loss(reduction="sum")), **LINES)
    assert kit.faults(found) == ["loss-not-mean"]


@pytest.mark.planted("initial-loss")
@pytest.mark.parametrize("how", ["bias", "tail"])
def test_a_first_answer_that_is_far_off(look, kit, how):
    network = kit.small_unet(residual=False)
    with torch.no_grad():
        if how == "bias":
            network.tail.bias.fill_(12.0)
        else:
            network.tail.weight.mul_(70)  # 7 times what the fan-in asks for: not yet a fault of scale
            network.head.weight.mul_(6)
    assert kit.faults(look(network)) == ["initial-loss"]


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


@pytest.mark.planted("cannot-overfit")
@pytest.mark.parametrize("model", [Detached, Elsewhere, Upwards, Unmoved])
def test_a_model_that_cannot_learn(look, kit, monkeypatch, model):
    monkeypatch.setattr(learning.CannotOverfit, "steps", 40)
    found = look(model=model(kit.small_unet(norm="batch"), optimizer=partial(torch.optim.Adam, lr=2e-3)), without=())
    assert kit.faults(found) == ["cannot-overfit"]


class Shut(nn.Module):
    """A network whose units are all dead."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet(widths=[8, 12], norm="none", residual=True)
        self.network.requires_grad_(True)

    def forward(self, x):
        return self.network(x).detach() + 0 * sum(p.sum() for p in self.network.parameters())


@pytest.mark.planted("cannot-overfit")
def test_a_network_that_is_cut_off_from_its_loss(look, kit, monkeypatch):
    monkeypatch.setattr(learning.CannotOverfit, "steps", 40)
    assert kit.faults(look(Shut(), without=())) == ["cannot-overfit"]


@pytest.mark.parametrize(
    "optimizer",
    [partial(torch.optim.SGD, lr=1e-6), partial(torch.optim.Adam, lr=1e-7), partial(torch.optim.Adam, lr=3.0)],
    ids=["sgd", "low", "high"],
)
def test_a_rate_that_is_far_off_is_a_note(look, kit, optimizer):
    found = look(model=kit.restorer(optimizer=optimizer), without=())
    assert kit.faults(found) == []
    assert "cannot-overfit" in kit.notes(found)


@pytest.mark.healthy
@pytest.mark.parametrize(
    "model",
    {
        "plain": lambda kit: kit.restorer(),
        "decayed": lambda kit: kit.restorer(optimizer=partial(torch.optim.AdamW, lr=2e-3, weight_decay=30.0)),
        "penalized": lambda kit: kit.restorer(l2=10.0),
        "dropout": lambda kit: kit.restorer(kit.small_unet(dropout=0.5)),
        "direct": lambda kit: kit.restorer(kit.small_unet(residual=False, norm="batch"), loss=nn.MSELoss()),
        "scheduled": lambda kit: kit.restorer(scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=2e-3)),
    }.items(),
    ids=lambda entry: entry[0],
)
def test_models_that_can_learn(look, kit, model):
    found = look(model=model[1](kit), without=())
    assert kit.faults(found) == []
    assert "cannot-overfit" not in kit.notes(found)


@pytest.mark.healthy
@pytest.mark.parametrize("more", [{}, {"discriminator": None}, {"generator_epochs": 2, "critic_epochs": 1}])
def test_a_game_that_can_learn(look, kit, more):
    found = look(model=kit.colorizer(**more), without=(), **LINES)
    assert kit.faults(found) == []
    assert "cannot-overfit" not in kit.notes(found)


def test_the_trial_leaves_the_model_as_it_was(kit, make_data):
    subject = kit.seen_by(kit.restorer(kit.small_unet(norm="batch")), make_data())
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    kit.examined(subject, without=())
    after = subject.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Swapped(GANColorizer):
    def discriminator_step(self, condition, real, fake, counts):
        return super().discriminator_step(condition, fake, real, counts)


class Deaf(nn.Module):
    """A discriminator whose logits its weights do not move."""

    def __init__(self) -> None:
        super().__init__()
        self.network = PatchGAN(in_channels=8, width=8, layers=2)

    def forward(self, x):
        return self.network(x).detach() + 0 * sum(p.sum() for p in self.network.parameters())


@pytest.mark.planted("cannot-overfit")
def test_a_discriminator_that_learns_the_wrong_way_round(look, kit):
    found = look(model=kit.colorizer(kind=Swapped), without=(), **LINES)
    assert kit.faults(found) == ["cannot-overfit"]
    assert found[-1].where == "discriminator"


@pytest.mark.planted("cannot-overfit")
def test_a_discriminator_that_does_not_learn(look, kit):
    found = look(model=kit.colorizer(discriminator=Deaf()), without=(), **LINES)
    assert kit.faults(found) == ["cannot-overfit"]
    assert found[-1].where == "discriminator"


@pytest.mark.healthy
@pytest.mark.parametrize("adversarial", [Hinge(), LeastSquares(), WassersteinGP()])
def test_games_of_every_kind(look, kit, adversarial):
    critic = PatchGAN(in_channels=8, width=8, layers=2, norm="instance")
    found = look(model=kit.colorizer(discriminator=critic, adversarial=adversarial), without=(), **LINES)
    assert kit.faults(found) == []
