"""Games that are no games: played by small GANs."""

from __future__ import annotations

from typing import Any

from networks import Blind, FirstOnly
from runs import play

from plants.plant import Plant
from project.models import GANColorizer
from project.models.adversarial import LeastSquares


class Same(GANColorizer):
    """Shows its discriminator the true picture twice."""

    def discriminator_step(self, condition: Any, real: Any, fake: Any, counts: bool) -> Any:
        return super().discriminator_step(condition, real, real, counts)


BY_HEART: dict[str, Any] = {
    "lr": (2e-5, 2e-3),
    "reconstruction_weight": 2.0,
    "steps": 140,
    "discriminator": {"width": 16, "norm": "none"},
}
"""A discriminator that is large and fast against its few pictures and its generator."""
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
    Plant("discriminator-inert", "GAN: sees true pictures twice", lambda s: play(s, Same, steps=120)),
    Plant(
        "discriminator-too-strong",
        "GAN: its rate x 25, no reconstruction",
        lambda s: play(s, lr=(1e-4, 5e-3), reconstruction_weight=0.0, steps=120),
    ),
    Plant(
        "discriminator-too-strong",
        "GAN: the same, least squares",
        lambda s: play(s, lr=(1e-4, 5e-3), reconstruction_weight=0.0, steps=120, adversarial=LeastSquares()),
    ),
    Plant(
        "discriminator-too-strong",
        "GAN: its rate x 100 against a slow generator",
        lambda s: play(s, lr=(2e-5, 5e-3), reconstruction_weight=2.0, steps=120),
    ),
    Plant(
        "discriminator-overfits",
        "GAN: four pictures",
        lambda s: play(s, few=1, **BY_HEART),
    ),
    Plant(
        "discriminator-overfits",
        "GAN: eight pictures",
        lambda s: play(s, few=2, **BY_HEART),
    ),
]
