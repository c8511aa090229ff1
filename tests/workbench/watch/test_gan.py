from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.workbench.toys import Restorer, convs, pair


class Space:
    def encode(self, rgb):
        return rgb[:, 1:]


class Loss:
    def generator(self, fake):
        return nn.functional.softplus(-fake).mean()


class Colorizer(L.LightningModule):
    """A GAN with the attributes of a GANColorizer, whose networks are simple enough to compute by hand."""

    def __init__(self, verdict=2.0):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Conv2d(1, 2, 1)
        self.discriminator = nn.Conv2d(3, 1, 1, bias=False)
        with torch.no_grad():
            self.discriminator.weight.copy_(torch.tensor([0.0, verdict, 0.0]).view(1, 3, 1, 1))
        self.space, self.adversarial, self.reconstruction = Space(), Loss(), nn.L1Loss()
        self.adversarial_weight, self.reconstruction_weight = 0.5, 20.0

    def forward(self, x):
        return torch.cat([x, self.generator(x)], dim=1)

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.step()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.0) for part in (self.generator, self.discriminator)]


@pytest.fixture
def data():
    def color(seed, size):
        batch = pair(seed, size=size, channels=3)
        return batch._replace(input=batch.target[:, :1])

    def loaders():
        training = DataLoader([color(n, (8, 8)) for n in range(6)], batch_size=None)
        return training, DataLoader([color(50 + n, (16, 16)) for n in range(2)], batch_size=None)

    return loaders


@pytest.mark.parametrize("verdict", [2.0, -2.0])
def test_gradients_of_the_losses_at_the_output_and_signs_on_real_images(fit, data, verdict):
    torch.manual_seed(0)
    model = Colorizer(verdict)
    history = fit(model, data=data())
    assert history["game/sign_val"].last == history["game/sign_train"].last == verdict / 2
    # L1: every value of the output gets a gradient of 1/n, so the norm is weight / sqrt(n).
    values = 16 * 2 * 8 * 8  # sixteen parts of the validation images, two channels each
    assert history["game/gradient_reconstruction"].last == pytest.approx(20 / values**0.5, rel=1e-3)
    ratio = history["game/gradient_adversarial"].last / history["game/gradient_reconstruction"].last
    assert history["game/gradient_ratio"].last == pytest.approx(ratio, rel=1e-4)
    # The verdict is twice the output's first channel: sigmoid(-2 a) * 2 / places, halved by the weight.
    assert 0 < history["game/gradient_adversarial"].last < 0.5 * 2 / (values / 2) ** 0.5
    assert all(p.grad is None for p in model.parameters())


def test_diversity_and_strength_of_colors(fit, data):
    class Same(Colorizer):
        def forward(self, x):
            return torch.tensor([0.9, 0.2, 0.1]).view(1, 3, 1, 1).expand(len(x), 3, *x.shape[2:])

    class Perfect(Colorizer):
        def forward(self, x):
            return fit.watch.probe.batch.target if len(x) != 2 else super().forward(x)

    history = fit(Same(), data=data())
    assert history["game/diversity"].last == pytest.approx(0, abs=1e-6)
    assert history["game/color_strength"].last > 0.5
    history = fit(Perfect(), data=data())
    assert history["game/diversity"].last == history["game/color_strength"].last == pytest.approx(1)


def test_other_models_are_left_alone(fit):
    assert not [name for name in fit(Restorer(convs())).scalars if name.startswith("game/")]
