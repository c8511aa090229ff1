"""Faults, planted one by one into small runs that would learn well without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
import torch
from runs import play, restore, unet
from torch import nn

from project.diagnosis import Finding
from project.models import GANColorizer, ImageRestorer
from project.models.adversarial import Standard


class Plant(NamedTuple):
    """A fault.

    Attributes:
        code: How it is to be named first.
        name: What was done.
        run: Seed -> what was found.
    """

    code: str
    name: str
    run: Callable[[int], list[Finding]]


class Half(ImageRestorer):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for n, p in self.network.named_parameters() if "decoder" not in n], lr=2e-3)


class Forgetful(ImageRestorer):
    def optimizer_zero_grad(self, *_: Any) -> None:
        pass


class Zero(L.Callback):
    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        for parameter in pl_module.network.parameters():
            parameter.grad.zero_()


class Swapped(Standard):
    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return super().discriminator(fake, real)


class Leaky(GANColorizer):
    def discriminator_step(self, condition: Any, real: Any, fake: Any, counts: bool) -> Any:
        return super().discriminator_step(condition, real, self.generator(condition).float(), counts)


class Forgotten(GANColorizer):
    def configure_optimizers(self) -> Any:
        generator, discriminator = super().configure_optimizers()
        discriminator["optimizer"].param_groups[0]["params"] = [nn.Parameter(torch.zeros(1))]
        return [generator, discriminator]


def filled(seed: int, part: str, value: float) -> nn.Module:
    """A network whose biases in one part all have one value."""
    network = unet(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if part in name and name.endswith("bias"):
                parameter.fill_(value)
    return network


def nan_at(step: int) -> Callable[[Any, int], Any]:
    return lambda pair, now: pair._replace(input=pair.input * math.nan) if now == step else pair


def unrelated(pair: Any, step: int) -> Any:
    return pair._replace(target=torch.rand_like(pair.target))


PLANTS = [
    Plant("learning-rate-high", "Adam, rate x 1000", lambda s: restore(s, lr=2.0)),
    Plant("learning-rate-high", "SGD, rate 1000", lambda s: restore(s, lr=1000.0, optimizer=torch.optim.SGD)),
    Plant("learning-rate-high", "GAN: generator's rate x 1000", lambda s: play(s, lr=(0.5, 2e-4))),
    Plant("learning-rate-high", "GAN: discriminator's rate x 1000", lambda s: play(s, lr=(5e-4, 0.2))),
    Plant("learning-rate-low", "Adam, rate / 2000", lambda s: restore(s, lr=1e-6)),
    Plant("learning-rate-low", "Adam, rate / 20000", lambda s: restore(s, lr=1e-7)),
    Plant("parameters-unchanged", "gradients set to 0", lambda s: restore(s, callbacks=[Zero()])),
    Plant("parameters-unchanged", "decoder without an optimiser", lambda s: restore(s, model=Half)),
    Plant("parameters-unchanged", "GAN: discriminator without an optimiser", lambda s: play(s, Forgotten)),
    Plant("gradients-not-cleared", "zero_grad overridden", lambda s: restore(s, model=Forgetful)),
    Plant("nonfinite-loss", "NaN in the input of step 33", lambda s: restore(s, spoil=nan_at(33))),
    Plant("nonfinite-loss", "NaN in the input of step 61", lambda s: restore(s, spoil=nan_at(61))),
    Plant("dead-units", "biases of the middle at -10", lambda s: restore(s, filled(s, "middle", -10.0))),
    Plant("dead-units", "biases of the encoder at -10", lambda s: restore(s, filled(s, "encoder", -10.0))),
    Plant("loss-flat", "targets that are noise", lambda s: restore(s, spoil=unrelated, steps=300)),
    Plant("regularisation-dominates", "l2 of 3", lambda s: restore(s, l2=3.0, steps=160)),
    Plant("labels-swapped", "GAN: labels swapped", lambda s: play(s, adversarial=Swapped(), lr=(5e-4, 1e-3))),
    Plant("discriminator-leaks", "GAN: colours not detached", lambda s: play(s, Leaky)),
    Plant("adversarial-imbalance", "GAN: adversarial weight of 1e6", lambda s: play(s, adversarial_weight=1e6)),
    Plant("discriminator-inert", "GAN: discriminator's rate of 1e-10", lambda s: play(s, lr=(5e-4, 1e-10), steps=160)),
]
