"""Games that are no games: played by small GANs."""

from __future__ import annotations

from typing import Any

import torch
from networks import Blind, FirstOnly
from runs import Gray, play

from plants.plant import Plant
from project.models import GANColorizer
from project.models.losses import LeastSquares


class Same(GANColorizer):
    """Shows its discriminator the true image twice."""

    def discriminator_step(self, condition: Any, real: Any, fake: Any, counts: bool) -> Any:
        return super().discriminator_step(condition, real, real, counts)


class Matched(GANColorizer):
    """Against a generator that is as good as the truth (other true images stand in for it), only memory helps."""

    def discriminator_step(self, condition: Any, real: Any, fake: Any, counts: bool) -> Any:
        other = Gray(1, 999).pair(self.global_step)
        true = self.discriminator(torch.cat([condition, real], dim=1))
        made = self.discriminator(torch.cat([other.input, other.target], dim=1))
        loss = self.adversarial.discriminator(true, made)
        self.optimize("discriminator", loss, counts)
        values = {"discriminator": loss, "score_real": true.mean(), "score_fake": made.mean()}
        return {name: value.detach() for name, value in values.items()}


LARGE: dict[str, Any] = {"width": 16, "norm": "none"}
PLANTS = [
    Plant(
        "mode-collapse",
        "GAN: generator blind, no reconstruction",
        lambda s: play(s, wrap=Blind, reconstruction_weight=0.0, steps=120, lr=(2e-3, 5e-4)),
    ),
    Plant(
        "mode-collapse",
        "GAN: generator blind, reconstruction of 1",
        lambda s: play(s, wrap=Blind, reconstruction_weight=1.0, steps=120, lr=(2e-3, 5e-4)),
    ),
    Plant(
        "mode-collapse",
        "GAN: one condition for the batch",
        lambda s: play(s, wrap=FirstOnly, reconstruction_weight=1.0, steps=120, lr=(2e-3, 5e-4)),
    ),
    Plant("discriminator-inert", "GAN: discriminator's rate of 1e-10", lambda s: play(s, lr=(5e-4, 1e-10), steps=120)),
    Plant("discriminator-inert", "GAN: sees true images twice", lambda s: play(s, Same, steps=120)),
    Plant(
        "discriminator-too-strong",
        "GAN: its rate x 20, no reconstruction",
        lambda s: play(s, lr=(1e-4, 2e-3), reconstruction_weight=0.0, steps=140),
    ),
    Plant(
        "discriminator-too-strong",
        "GAN: the same, least squares",
        lambda s: play(s, lr=(1e-4, 2e-3), reconstruction_weight=0.0, steps=140, adversarial=LeastSquares()),
    ),
    Plant(
        "discriminator-too-strong",
        "GAN: its rate x 100 against a slow generator",
        lambda s: play(s, lr=(2e-5, 2e-3), reconstruction_weight=5.0, steps=140),
    ),
    Plant(
        "discriminator-overfits",
        "GAN: four images, an excellent generator",
        lambda s: play(s, Matched, few=1, lr=(5e-4, 2e-3), steps=120, discriminator=LARGE),
    ),
    Plant(
        "discriminator-overfits",
        "GAN: eight images, an excellent generator",
        lambda s: play(s, Matched, few=2, lr=(5e-4, 2e-3), steps=140, discriminator=LARGE),
    ),
]
