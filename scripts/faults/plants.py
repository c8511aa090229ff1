"""Faults, planted one by one into small runs that would learn well without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import broken
import networks as net
import torch
from runs import Run, colorize, play, restore, unet
from torch import nn

from project.data.batch import Batch
from project.models.losses import LeastSquares, Standard

Change = Callable[[Batch], Batch]


class Plant(NamedTuple):
    """A fault."""

    code: str  # by which it is to be named first
    name: str  # what was done
    run: Run


def nan_at(step: int) -> Any:
    return lambda pair, now: pair._replace(input=pair.input * math.nan) if now == step else pair


def since(step: int, change: Change) -> Any:
    return lambda pair, now: change(pair) if now >= step else pair


def in_turns(length: int, change: Change) -> Any:
    return lambda pair, now: change(pair) if now >= 0 and now // length % 2 else pair


def always(change: Change) -> Any:
    return lambda pair, now: change(pair)


def noisy_targets(few: int) -> Any:
    """The same noise on an image's target whenever it comes, as in photographs of which there is one noisy shot."""

    def change(pair: Batch, step: int) -> Batch:
        noise = torch.randn(pair.target.shape, generator=torch.Generator().manual_seed(step % few))
        return pair if step < 0 else pair._replace(target=pair.target + 0.3 * noise)

    return change


def unrelated(pair: Batch) -> Batch:
    return pair._replace(target=torch.rand_like(pair.target))


def shuffled(pair: Batch) -> Batch:
    return pair._replace(target=pair.target.roll(1, 0))


def louder(pair: Batch) -> Batch:
    return pair._replace(input=pair.target + 5 * (pair.input - pair.target))


def negative(pair: Batch) -> Batch:
    return pair._replace(target=1 - pair.target)


def darker(pair: Batch) -> Batch:
    return pair._replace(input=pair.input / 255)


def collapse(seed: int, wrap: Any, weight: float) -> Any:
    return play(seed, wrap=wrap, reconstruction_weight=weight, steps=120, lr=(2e-3, 5e-4))


def memorize(seed: int, few: int, steps: int) -> Any:
    judge = {"width": 16, "norm": "none"}
    return play(seed, broken.Matched, few=few, lr=(5e-4, 2e-3), steps=steps, discriminator=judge)


def overfit(seed: int, few: int, steps: int) -> Any:
    network = unet(seed, widths=[16, 24], residual=False)
    return restore(seed, network, lr=4e-3, few=few, steps=steps, spoil=noisy_targets(few))


DIRECT: dict[str, Any] = {"in_channels": 1, "residual": False}
SGD = torch.optim.SGD
Jump = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1.0 if step < 60 else 300.0)

WAYS: dict[str, dict[str, Run]] = {
    "gradients-not-cleared": {
        "zero_grad overridden": lambda s: restore(s, model=broken.NeverCleared),
        "steps by hand without zero_grad": lambda s: restore(s, model=broken.ByHand),
        "GAN: zero_grad missing": lambda s: play(s, broken.NeverClearedGAN),
    },
    "parameters-unchanged": {
        "gradients set to 0": lambda s: restore(s, callbacks=[broken.ZeroGradients()]),
        "decoder without an optimizer": lambda s: restore(s, model=broken.NoDecoder),
        "first of two networks detached": lambda s: restore(s, net.Cut(s)),
        "GAN: discriminator without an optimizer": lambda s: play(s, broken.NoDiscriminator),
    },
    "labels-swapped": {
        "GAN: labels swapped": lambda s: play(s, adversarial=broken.swapped(Standard()), lr=(5e-4, 1e-3)),
        "GAN: the same, least squares": lambda s: play(s, adversarial=broken.swapped(LeastSquares()), lr=(5e-4, 1e-3)),
    },
    "discriminator-leaks": {
        "GAN: colors not detached": lambda s: play(s, broken.NotDetached),
        "GAN: gradients cleared once a batch": lambda s: play(s, broken.ClearedTooEarly),
    },
    "learning-rate-high": {
        "Adam, rate x 1000": lambda s: restore(s, lr=2.0),
        "SGD, rate 1000": lambda s: restore(s, lr=1000.0, optimizer=SGD),
        "Adam, rate 0.3, plain network": lambda s: restore(s, net.chain(s), lr=0.3),
        "schedule x 300 at step 60": lambda s: restore(s, steps=120, scheduler=Jump, schedule_every="step"),
        "GAN: generator's rate x 1000": lambda s: play(s, lr=(0.5, 2e-4)),
        "GAN: discriminator's rate x 1000": lambda s: play(s, lr=(5e-4, 0.2)),
    },
    "learning-rate-low": {
        "Adam, rate / 2000": lambda s: restore(s, lr=1e-6),
        "Adam, rate / 20000": lambda s: restore(s, lr=1e-7),
        "SGD with a rate of Adam": lambda s: restore(s, lr=1e-5, optimizer=SGD),
        "GAN: generator's rate / 5000": lambda s: play(s, lr=(1e-7, 2e-4)),
    },
    "regularization-dominates": {
        "l2 of 3": lambda s: restore(s, l2=3.0, steps=160),
        "l1 of 1": lambda s: restore(s, l1=1.0, steps=160),
        "weight decay of 1 in Adam": lambda s: colorize(s, steps=160, options={"weight_decay": 1.0}),
    },
    "adversarial-imbalance": {
        "GAN: adversarial weight of 1e6": lambda s: play(s, adversarial_weight=1e6),
        "GAN: reconstruction is a sum": lambda s: play(s, reconstruction=nn.L1Loss(reduction="sum")),
    },
    "exploding-gradients": {
        "kernels from N(0, 1)": lambda s: restore(s, net.started(net.normal(1.0), unet(s))),
        "kernels x 6 of a deep UNet": lambda s: restore(s, net.started(net.times(6), unet(s, widths=[8, 12, 16]))),
        "one convolution twelve times over": lambda s: restore(s, net.Again(s, 12, 0.5)),
        "forty blocks that add, no norm": lambda s: restore(s, net.Residuals(s, 40, 2.0)),
        "twelve layers from N(0, 0.5)": lambda s: restore(s, net.chain(s, layers=12, start=net.normal(0.5))),
    },
    "nonfinite-loss": {
        "NaN in the input of step 33": lambda s: restore(s, spoil=nan_at(33)),
        "NaN in the input of step 61": lambda s: restore(s, spoil=nan_at(61)),
        "logarithm in the loss": lambda s: restore(s, loss=broken.Logarithmic()),
        "GAN: NaN in the input of step 41": lambda s: play(s, spoil=nan_at(41)),
    },
    "dead-units": {
        "biases of the middle at -10": lambda s: restore(s, net.filled(s, "middle", -10.0)),
        "biases of the encoder at -10": lambda s: restore(s, net.filled(s, "encoder", -10.0)),
        "plain network, images x -255": lambda s: restore(
            s, net.stretched(net.chain(s, start=lambda weight: weight.data.abs_()), -255.0)
        ),
    },
    "saturated-units": {
        "eight layers of tanh from N(0, 1)": lambda s: colorize(
            s, net.chain(s, "tanh", 8, channels=1, start=net.normal(1.0))
        ),
        "sigmoids, images x 255": lambda s: colorize(s, net.stretched(net.chain(s, "sigmoid", channels=1), 255.0)),
        "tanh, kernels x 30": lambda s: restore(s, net.chain(s, "tanh", 5, start=net.times(30))),
        "UNet of tanh, kernels x 20": lambda s: colorize(
            s, net.started(net.times(20), unet(s, activation="tanh", stage_residual=False, **DIRECT))
        ),
    },
    "vanishing-gradients": {
        "twelve layers of sigmoids": lambda s: restore(s, net.chain(s, "sigmoid", 12)),
        "twenty layers of tanh, kernels / 2": lambda s: restore(s, net.chain(s, "tanh", 20, start=net.times(0.5))),
        "UNet of sigmoids without skips": lambda s: restore(
            s, unet(s, activation="sigmoid", skip="none", stage_residual=False, residual=False, widths=[8, 12, 16, 16])
        ),
    },
    "weights-abnormal": {
        "kernels grow by 3 % a step": lambda s: restore(s, callbacks=[broken.Swelling("", 1.03)], steps=120),
        "one layer grows by 5 % a step": lambda s: restore(s, callbacks=[broken.Swelling("middle", 1.05)], steps=120),
        "one layer 100 times, group norm": lambda s: colorize(
            s, net.scaled(unet(s, norm="group", **DIRECT), "middle.0.body.0", 100.0)
        ),
        "one layer starts 1000 times as large": lambda s: restore(s, net.scaled(unet(s), "decoder.0.0.body.0", 1000.0)),
        "biases of the decoder at 300": lambda s: restore(s, net.filled(s, "decoder", 300.0)),
    },
    "activations-off-centre": {
        "temperatures in Kelvin": lambda s: colorize(
            s, net.shifted(net.chain(s, "leaky", channels=1), 290.0), steps=200
        ),
        "input off by 20, ELU": lambda s: colorize(s, net.shifted(net.chain(s, "elu", channels=1), 20.0)),
        "UNet, input off by 50": lambda s: colorize(s, net.shifted(unet(s, **DIRECT), 50.0), steps=200),
    },
    "mode-collapse": {
        "GAN: generator blind, no reconstruction": lambda s: collapse(s, net.blind, 0.0),
        "GAN: generator blind, reconstruction of 1": lambda s: collapse(s, net.blind, 1.0),
        "GAN: one condition for the batch": lambda s: collapse(s, net.first_only, 1.0),
    },
    "discriminator-inert": {
        "GAN: discriminator's rate of 1e-10": lambda s: play(s, lr=(5e-4, 1e-10), steps=120),
        "GAN: sees true images twice": lambda s: play(s, broken.RealTwice, steps=120),
    },
    "discriminator-too-strong": {
        "GAN: its rate x 20, no reconstruction": lambda s: play(
            s, lr=(1e-4, 2e-3), reconstruction_weight=0.0, steps=140
        ),
        "GAN: the same, least squares": lambda s: play(
            s, lr=(1e-4, 2e-3), reconstruction_weight=0.0, steps=140, adversarial=LeastSquares()
        ),
        "GAN: its rate x 100 against a slow generator": lambda s: play(
            s, lr=(2e-5, 2e-3), reconstruction_weight=5.0, steps=140
        ),
    },
    "discriminator-overfits": {
        "GAN: four images, an excellent generator": lambda s: memorize(s, few=1, steps=120),
        "GAN: eight images, an excellent generator": lambda s: memorize(s, few=2, steps=140),
    },
    "loss-surge": {
        "noise x 5 from step 80 on": lambda s: restore(s, spoil=since(80, louder), steps=140),
        "targets of the next image from step 80 on": lambda s: restore(s, spoil=since(80, shuffled), steps=140),
        "images / 255 from step 80 on": lambda s: restore(s, spoil=since(80, darker), steps=140),
    },
    "loss-oscillates": {
        "sorted: ten batches, ten negatives": lambda s: restore(s, spoil=in_turns(10, negative), steps=140),
        "sorted: four batches, four negatives": lambda s: restore(s, spoil=in_turns(4, negative), steps=120),
    },
    "overfitting": {
        "four images, noisy targets": lambda s: overfit(s, few=1, steps=240),
        "eight images, noisy targets": lambda s: overfit(s, few=2, steps=280),
    },
    "metric-disagrees": {
        "an error counted as a score": lambda s: restore(s, steps=120, metrics={"error": broken.Error()}),
        "sharpness of a denoiser": lambda s: restore(s, steps=120, metrics={"sharpness": broken.Sharpness()}),
    },
    "loss-flat": {
        "targets that are noise": lambda s: restore(s, spoil=always(unrelated), steps=220),
        "targets of the next image": lambda s: restore(s, spoil=always(shuffled), steps=220),
    },
}
"""Code -> what was done -> the run, which takes a seed."""

PLANTS = [Plant(code, name, run) for code, ways in WAYS.items() for name, run in ways.items()]
