"""Faults, planted one by one into small runs that would learn well without them."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from functools import partial

import broken
import torch
from networks import Make, chain, detached, edited, gray_unet, input_changed, normal, recurrent, residuals, times, unet
from runs import Run, Spoil, colorize, play, restore
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR

from project.data.batch import Batch
from project.models.losses import LeastSquares, Standard


def at(steps: Container[int], input: str | None = None, target: str | None = None) -> Spoil:
    """Change the input or the target of the batches of these steps; -1 stands for validation."""

    def spoil(pair: Batch, step: int) -> Batch:
        if step not in steps:
            return pair
        return pair._replace(input=INPUTS[input](pair)) if input else pair._replace(target=TARGETS[target](pair))

    return spoil


def overfit(few: int, steps: int) -> Run:
    """The same noise on a target whenever it comes, as in photographs of which there is one noisy shot."""

    def noisy_target(pair: Batch, step: int) -> Batch:
        noise = torch.randn(pair.target.shape, generator=torch.Generator().manual_seed(step % few))
        return pair if step < 0 else pair._replace(target=pair.target + 0.3 * noise)

    return restore(unet(widths=[16, 24], residual=False), lr=4e-3, few=few, steps=steps, spoil=noisy_target)


def collapse(change: Callable[[Tensor], Tensor], weight: float) -> Run:
    generator = input_changed(gray_unet(), change)
    return play(generator=generator, reconstruction_weight=weight, steps=120, lr=(2e-3, 5e-4))


def memorize(few: int, steps: int) -> Run:
    return play(broken.Matched, few=few, lr=(5e-4, 2e-3), steps=steps, discriminator={"width": 16, "norm": "none"})


def shifted(make: Make, by: float) -> Make:
    return input_changed(make, lambda x: x + by)


def biases(part: str, value: float) -> Make:
    return edited(unet(), lambda bias: bias.fill_(value), part, kind="bias")


INPUTS: dict[str, Callable[[Batch], Tensor]] = {
    "nan": lambda pair: pair.input * math.nan,
    "noisier": lambda pair: pair.target + 5 * (pair.input - pair.target),
    "darker": lambda pair: pair.input / 255,
}
TARGETS: dict[str, Callable[[Batch], Tensor]] = {
    "negative": lambda pair: 1 - pair.target,
    "next": lambda pair: pair.target.roll(1, 0),
    "unrelated": lambda pair: torch.rand_like(pair.target),
}
ALWAYS, FROM_80 = range(-1, 1000), range(80, 1000)
INTERLEAVED = {length: [step for step in range(1000) if step // length % 2] for length in (4, 10)}
JUMP = partial(LambdaLR, lr_lambda=lambda step: 1.0 if step < 60 else 300.0)
TOO_STRONG = partial(play, reconstruction_weight=0.0, lr=(1e-4, 2e-3), steps=140)
WITHOUT_SKIPS = {"skip": "none", "stage_residual": False, "residual": False, "widths": [8, 12, 16, 16]}

WAYS: dict[str, dict[str, Run]] = {
    "gradients-not-cleared": {
        "zero_grad overridden": restore(model=broken.NeverCleared),
        "steps by hand without zero_grad": restore(model=broken.NeverClearedByHand),
        "GAN: zero_grad missing": play(broken.NeverClearedGAN),
    },
    "parameters-unchanged": {
        "gradients set to 0": restore(callbacks=[broken.ZeroGradients()]),
        "decoder without an optimizer": restore(model=broken.NoDecoder),
        "first of two networks detached": restore(detached()),
        "GAN: discriminator without an optimizer": play(broken.NoDiscriminator),
    },
    "labels-swapped": {
        "GAN: labels swapped": play(adversarial=broken.swapped(Standard()), lr=(5e-4, 1e-3)),
        "GAN: the same, least squares": play(adversarial=broken.swapped(LeastSquares()), lr=(5e-4, 1e-3)),
    },
    "discriminator-leaks": {
        "GAN: colors not detached": play(broken.NotDetached),
        "GAN: gradients cleared once a batch": play(broken.ClearedTooEarly),
    },
    "learning-rate-high": {
        "Adam, rate x 1000": restore(lr=2.0),
        "SGD, rate 1000": restore(lr=1000.0, optimizer=SGD),
        "Adam, rate 0.3, plain network": restore(chain(), lr=0.3),
        "schedule x 300 at step 60": restore(steps=120, scheduler=JUMP, schedule_every="step"),
        "GAN: generator's rate x 1000": play(lr=(0.5, 2e-4)),
        "GAN: discriminator's rate x 1000": play(lr=(5e-4, 0.2)),
    },
    "learning-rate-low": {
        "Adam, rate / 2000": restore(lr=1e-6),
        "Adam, rate / 20000": restore(lr=1e-7),
        "SGD with a rate of Adam": restore(lr=1e-5, optimizer=SGD),
        "GAN: generator's rate / 5000": play(lr=(1e-7, 2e-4)),
    },
    "regularization-dominates": {
        "l2 of 3": restore(l2=3.0, steps=160),
        "l1 of 1": restore(l1=1.0, steps=160),
        "weight decay of 1 in Adam": colorize(steps=160, optimizer=partial(Adam, weight_decay=1.0)),
    },
    "adversarial-imbalance": {
        "GAN: adversarial weight of 1e6": play(adversarial_weight=1e6),
        "GAN: reconstruction is a sum": play(reconstruction=nn.L1Loss(reduction="sum")),
    },
    "exploding-gradients": {
        "kernels from N(0, 1)": restore(edited(unet(), normal(1.0))),
        "kernels x 6 of a deep UNet": restore(edited(unet(widths=[8, 12, 16]), times(6))),
        "one convolution twelve times over": restore(recurrent(12, 0.5)),
        "forty blocks that add, no norm": restore(edited(residuals(40), times(2.0), "blocks")),
        "twelve layers from N(0, 0.5)": restore(edited(chain(layers=12), normal(0.5))),
    },
    "nonfinite-loss": {
        "NaN in the input of step 33": restore(spoil=at([33], input="nan")),
        "NaN in the input of step 61": restore(spoil=at([61], input="nan")),
        "logarithm in the loss": restore(loss=broken.Logarithmic()),
        "GAN: NaN in the input of step 41": play(spoil=at([41], input="nan")),
    },
    "dead-units": {
        "biases of the middle at -10": restore(biases("middle", -10.0)),
        "biases of the encoder at -10": restore(biases("encoder", -10.0)),
        "plain network, images x -255": restore(input_changed(edited(chain(), Tensor.abs_), lambda x: x * -255.0)),
    },
    "saturated-units": {
        "eight layers of tanh from N(0, 1)": colorize(edited(chain(nn.Tanh, 8, channels=1), normal(1.0))),
        "sigmoids, images x 255": colorize(input_changed(chain(nn.Sigmoid, channels=1), lambda x: x * 255.0)),
        "tanh, kernels x 30": restore(edited(chain(nn.Tanh, 5), times(30))),
        "UNet of tanh, kernels x 20": colorize(edited(gray_unet(activation="tanh", stage_residual=False), times(20))),
    },
    "vanishing-gradients": {
        "twelve layers of sigmoids": restore(chain(nn.Sigmoid, 12)),
        "twenty layers of tanh, kernels / 2": restore(edited(chain(nn.Tanh, 20), times(0.5))),
        "UNet of sigmoids without skips": restore(unet(activation="sigmoid", **WITHOUT_SKIPS)),
    },
    "weights-abnormal": {
        "kernels grow by 3 % a step": restore(callbacks=[broken.Growing("", 1.03)], steps=120),
        "one layer grows by 5 % a step": restore(callbacks=[broken.Growing("middle", 1.05)], steps=120),
        "one layer 100 times, group norm": colorize(edited(gray_unet(norm="group"), times(100.0), "middle.0.body.0")),
        "one layer starts 1000 times as large": restore(edited(unet(), times(1000.0), "decoder.0.0.body.0")),
        "biases of the decoder at 300": restore(biases("decoder", 300.0)),
    },
    "activations-off-centre": {
        "temperatures in Kelvin": colorize(
            input_changed(chain(nn.LeakyReLU, channels=1), lambda x: x + 290.0), steps=200
        ),
        "input off by 20, ELU": colorize(input_changed(chain(nn.ELU, channels=1), lambda x: x + 20.0)),
        "UNet, input off by 50": colorize(input_changed(gray_unet(), lambda x: x + 50.0), steps=200),
    },
    "mode-collapse": {
        "GAN: generator blind, no reconstruction": collapse(torch.zeros_like, 0.0),
        "GAN: generator blind, reconstruction of 1": collapse(torch.zeros_like, 1.0),
        "GAN: one condition for the batch": collapse(lambda x: x[:1].expand_as(x), 1.0),
    },
    "discriminator-inert": {
        "GAN: discriminator's rate of 1e-10": play(lr=(5e-4, 1e-10), steps=120),
        "GAN: sees true images twice": play(broken.RealTwice, steps=120),
    },
    "discriminator-too-strong": {
        "GAN: its rate x 20, no reconstruction": TOO_STRONG(),
        "GAN: the same, least squares": TOO_STRONG(adversarial=LeastSquares()),
        "GAN: its rate x 100 against a slow generator": TOO_STRONG(lr=(2e-5, 2e-3), reconstruction_weight=5.0),
    },
    "discriminator-overfits": {
        "GAN: four images, an excellent generator": memorize(few=1, steps=120),
        "GAN: eight images, an excellent generator": memorize(few=2, steps=140),
    },
    "loss-surge": {
        "noise x 5 from step 80 on": restore(spoil=at(FROM_80, input="noisier"), steps=140),
        "targets of the next image from step 80 on": restore(spoil=at(FROM_80, target="next"), steps=140),
        "images / 255 from step 80 on": restore(spoil=at(FROM_80, input="darker"), steps=140),
    },
    "loss-oscillates": {
        "sorted: ten batches, ten negatives": restore(spoil=at(INTERLEAVED[10], target="negative"), steps=140),
        "sorted: four batches, four negatives": restore(spoil=at(INTERLEAVED[4], target="negative"), steps=120),
    },
    "overfitting": {
        "four images, noisy targets": overfit(few=1, steps=240),
        "eight images, noisy targets": overfit(few=2, steps=280),
    },
    "metric-disagrees": {
        "an error counted as a score": restore(steps=120, metrics={"error": broken.Error()}),
        "sharpness of a denoiser": restore(steps=120, metrics={"sharpness": broken.Sharpness()}),
    },
    "loss-flat": {
        "targets that are noise": restore(spoil=at(ALWAYS, target="unrelated"), steps=220),
        "targets of the next image": restore(spoil=at(ALWAYS, target="next"), steps=220),
    },
}
"""Code by which a fault is to be named first -> what was done -> the run."""

PLANTS = [(code, name, run) for code, ways in WAYS.items() for name, run in ways.items()]
