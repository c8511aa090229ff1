"""Whole small games of a GANColorizer: healthy ones have no faults, planted ones are named."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from project.data.batch import Batch
from project.models import GANColorizer
from project.models.losses import Hinge, LeastSquares, Standard, WassersteinGP
from project.networks import PatchGAN, UNet
from workbench.watch.activations import Activations
from workbench.watch.dead_units import DeadUnits
from workbench.watch.gan import GANMonitor
from workbench.watch.gradient_flow import GradientFlow
from workbench.watch.health import Health
from workbench.watch.update_ratio import UpdateRatio

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


class Waves(L.LightningDataModule):
    """Smooth waves whose colors follow from their direction: what is gray in them tells how to color it."""

    normalization = {"input": ([0.5], [0.25]), "target": ([0.5] * 3, [0.25] * 3)}  # noqa: RUF012
    pairs = SimpleNamespace(keeps_lightness=True, hints=SimpleNamespace(channels=0))
    crop = 24

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def _pair(self, seed: int, count: int = 4) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        angle, phase = torch.rand(2, count, 1, 1, 1, generator=generator) * 6.28
        place = torch.arange(24) / 24 * 6.28
        wave = torch.sin(2 * (place[:, None] * angle.cos() + place * angle.sin()) + phase)
        color = torch.cat([angle.cos(), angle.sin(), -angle.cos()], dim=1)
        target = (0.5 + 0.25 * wave + 0.2 * color).clamp(0, 1)
        gray = (target * LUMA).sum(dim=1, keepdim=True)
        return Batch(gray, target, gray.expand(-1, 3, -1, -1), *[torch.arange(count)] * 2)

    def train_dataloader(self):
        return DataLoader([self._pair(n) for n in range(self.steps)], batch_size=None)

    def val_dataloader(self):
        return DataLoader([self._pair(10**6 + n) for n in range(4)], batch_size=None)


def play(cls=GANColorizer, lr=(5e-4, 2e-4), steps=80, adversarial=None, **options) -> list[str]:
    """The codes of the faults of a short game, in order."""
    torch.manual_seed(0)
    generator = UNet(in_channels=1, out_channels=3, widths=[8, 16], norm="none", skip="add", stage_residual=True)
    discriminator = PatchGAN(4, width=8, layers=2, norm="instance")
    makers = {
        f"{name}_optimizer": lambda p, rate=rate: torch.optim.Adam(p, lr=rate, betas=(0.5, 0.99))
        for name, rate in zip(("generator", "discriminator"), lr, strict=True)
    }
    model = cls(generator, discriminator, space="rgb", adversarial=adversarial, metrics={}, **makers, **options)
    health = Health()
    monitors = [GradientFlow(), UpdateRatio(), DeadUnits(), Activations(), GANMonitor(), health]
    trainer = L.Trainer(
        callbacks=monitors, logger=False, max_epochs=1, accelerator="cpu", num_sanity_val_steps=0,
        val_check_interval=20, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, Waves(steps))
    return [finding.code for finding in health.findings if finding.is_fault]


@pytest.mark.parametrize("loss", [Standard, LeastSquares, Hinge, WassersteinGP])
def test_a_healthy_game_has_no_faults(loss):
    assert play(adversarial=loss()) == []


def test_nor_has_one_whose_generator_trains_alone_at_first():
    assert play(generator_epochs=1) == []


class Swapped(Standard):
    def discriminator(self, real, fake):
        return super().discriminator(fake, real)


def test_swapped_labels():
    assert play(adversarial=Swapped(), lr=(5e-4, 1e-3))[0] == "labels-swapped"


def test_a_generator_that_the_discriminator_trains():
    class Leaky(GANColorizer):
        def discriminator_step(self, condition, real, fake, counts):
            return super().discriminator_step(condition, real, self.generator(condition).float(), counts)

    assert play(Leaky)[0] == "discriminator-leaks"


def test_an_adversarial_loss_that_drowns_the_other():
    assert play(adversarial_weight=1e6)[0] == "adversarial-imbalance"


@pytest.mark.parametrize("who", [0, 1])
def test_a_rate_a_thousand_times_too_high(who):
    lr = [5e-4, 2e-4]
    lr[who] *= 1000
    assert play(lr=lr)[0] == "learning-rate-high"


def test_a_discriminator_that_does_not_learn():
    assert play(lr=(5e-4, 1e-10), steps=160)[0] == "discriminator-inert"


def test_a_discriminator_without_an_optimizer():
    class Forgotten(GANColorizer):
        def configure_optimizers(self):
            generator, discriminator = super().configure_optimizers()
            discriminator["optimizer"].param_groups[0]["params"] = [nn.Parameter(torch.zeros(1))]
            return [generator, discriminator]

    codes = play(Forgotten)
    assert codes[0] == "parameters-unchanged"
