"""Gradients, units and weights that keep a network from learning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from networks import Again, Residuals, Shifted, chain, filled, scaled, started
from runs import Gray, play, restore, unet
from torch import Tensor, nn

from plants.plant import Plant


def nan_at(step: int) -> Callable[[Any, int], Any]:
    return lambda pair, now: pair._replace(input=pair.input * math.nan) if now == step else pair


class Logarithmic(nn.Module):
    """A loss that takes the logarithm of what may be below 0."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.log() - target.log()).abs().mean()


class Swelling(L.Callback):
    """A decay of weights with the wrong sign: they grow a bit at every step."""

    def __init__(self, part: str, by: float) -> None:
        self.part, self.by = part, by

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            for name, parameter in pl_module.network.named_parameters():
                if self.part in name and parameter.ndim > 1:
                    parameter.mul_(self.by)


def normal(std: float) -> Callable[[Tensor], object]:
    return lambda weight: nn.init.normal_(weight, std=std)


def times(factor: float) -> Callable[[Tensor], object]:
    return lambda weight: weight.data.mul_(factor)


def colors(seed: int, network: nn.Module, steps: int = 120, **more: Any) -> Any:
    """Colors from gray waves, by regression: what no straight line can do."""
    return restore(seed, network, steps=steps, data=Gray, **more)


PLANTS = [
    Plant("exploding-gradients", "kernels from N(0, 1)", lambda s: restore(s, started(normal(1.0), s))),
    Plant(
        "exploding-gradients",
        "kernels x 6 of a deep UNet",
        lambda s: restore(s, started(times(6), s, widths=[8, 12, 16])),
    ),
    Plant("exploding-gradients", "one convolution twelve times over", lambda s: restore(s, Again(s, 12, 0.5))),
    Plant("exploding-gradients", "forty blocks that add, no norm", lambda s: restore(s, Residuals(s, 40, 2.0))),
    Plant(
        "exploding-gradients",
        "twelve layers from N(0, 0.5)",
        lambda s: restore(s, chain(s, layers=12, start=normal(0.5))),
    ),
    Plant("nonfinite-loss", "NaN in the input of step 33", lambda s: restore(s, spoil=nan_at(33))),
    Plant("nonfinite-loss", "NaN in the input of step 61", lambda s: restore(s, spoil=nan_at(61))),
    Plant("nonfinite-loss", "logarithm in the loss", lambda s: restore(s, loss=Logarithmic())),
    Plant("nonfinite-loss", "GAN: NaN in the input of step 41", lambda s: play(s, spoil=nan_at(41))),
    Plant("dead-units", "biases of the middle at -10", lambda s: restore(s, filled(s, "middle", -10.0))),
    Plant("dead-units", "biases of the encoder at -10", lambda s: restore(s, filled(s, "encoder", -10.0))),
    Plant(
        "dead-units",
        "plain network, images x -255",
        lambda s: restore(s, Shifted(chain(s, start=lambda w: w.data.abs_()), 0.0, -255.0)),
    ),
    Plant(
        "saturated-units",
        "eight layers of tanh from N(0, 1)",
        lambda s: colors(s, chain(s, "tanh", 8, given=1, start=normal(1.0))),
    ),
    Plant(
        "saturated-units",
        "sigmoids, images x 255",
        lambda s: colors(s, Shifted(chain(s, "sigmoid", given=1), 0.0, 255.0)),
    ),
    Plant("saturated-units", "tanh, kernels x 30", lambda s: restore(s, chain(s, "tanh", 5, start=times(30)))),
    Plant(
        "saturated-units",
        "UNet of tanh, kernels x 20",
        lambda s: colors(
            s, started(times(20), s, activation="tanh", in_channels=1, residual=False, stage_residual=False)
        ),
    ),
    Plant("vanishing-gradients", "twelve layers of sigmoids", lambda s: restore(s, chain(s, "sigmoid", 12))),
    Plant(
        "vanishing-gradients",
        "twenty layers of tanh, kernels / 2",
        lambda s: restore(s, chain(s, "tanh", 20, start=times(0.5))),
    ),
    Plant(
        "vanishing-gradients",
        "UNet of sigmoids without skips",
        lambda s: restore(
            s, unet(s, activation="sigmoid", skip="none", stage_residual=False, residual=False, widths=[8, 12, 16, 16])
        ),
    ),
    Plant(
        "weights-abnormal",
        "kernels grow by 3 % a step",
        lambda s: restore(s, callbacks=[Swelling("", 1.03)], steps=120),
    ),
    Plant(
        "weights-abnormal",
        "one layer grows by 5 % a step",
        lambda s: restore(s, callbacks=[Swelling("middle", 1.05)], steps=120),
    ),
    Plant(
        "weights-abnormal",
        "one layer 100 times, group norm",
        lambda s: colors(s, scaled(unet(s, norm="group", in_channels=1, residual=False), "middle.0.body.0", 100.0)),
    ),
    Plant(
        "weights-abnormal",
        "one layer starts 1000 times as large",
        lambda s: restore(s, scaled(unet(s), "decoder.0.0.body.0", 1000.0)),
    ),
    Plant("weights-abnormal", "biases of the decoder at 300", lambda s: restore(s, filled(s, "decoder", 300.0))),
    Plant(
        "activations-off-centre",
        "temperatures in Kelvin",
        lambda s: colors(s, Shifted(chain(s, "leaky", given=1), 290.0), steps=200),
    ),
    Plant(
        "activations-off-centre",
        "input off by 20, ELU",
        lambda s: colors(s, Shifted(chain(s, "elu", given=1), 20.0)),
    ),
    Plant(
        "activations-off-centre",
        "UNet, input off by 50",
        lambda s: colors(s, Shifted(unet(s, in_channels=1, residual=False), 50.0), steps=200),
    ),
]
