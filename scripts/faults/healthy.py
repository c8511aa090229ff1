"""Varied runs in which nothing is wrong: whatever is called a fault in them is a false alarm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from networks import Residuals, chain
from runs import Hinted, Run, colorize, play, restore, unet
from torch import nn, optim
from torch.optim import lr_scheduler

from project.models.losses import Charbonnier, Hinge, LeastSquares, PSNRLoss, Standard, WassersteinGP

NETWORKS: dict[str, dict[str, Any]] = {
    "no norm": {},
    "batch norm, concat": {"norm": "batch", "residual": False, "stage_residual": False, "skip": "concat"},
    "group norm, leaky": {"activation": "leaky_relu", "norm": "group"},
    "three levels, GELU": {"activation": "gelu", "widths": [6, 12, 24]},
    "dropout, SiLU": {"dropout": 0.1, "activation": "silu"},
    "layer norm, wide": {"norm": "layer", "widths": [16, 24]},
}
RATES = (6e-4, 2e-3, 6e-3)


def frozen(seed: int) -> nn.Module:
    """An encoder that stays as it is, on purpose."""
    network = unet(seed)
    network.encoder.requires_grad_(False)
    return network


def silent(seed: int) -> nn.Module:
    """A network that begins by giving back its input."""
    network = unet(seed)
    nn.init.zeros_(network.tail.weight)
    return network


TWICE: dict[str, Run] = {
    f"{name}, rate {rate:g}": lambda s, n=network, r=rate: restore(s, unet(s, **n), lr=r)
    for name, network in NETWORKS.items()
    for rate in RATES
}
"""Of two seeds each."""
THRICE: dict[str, Run] = {
    "SGD": lambda s: restore(s, lr=0.05, optimizer=optim.SGD),
    "bfloat16, mean squared error": lambda s: restore(s, loss=nn.MSELoss(), trainer={"precision": "bf16-mixed"}),
    "AdamW, two batches a step": lambda s: restore(
        s, optimizer=optim.AdamW, trainer={"accumulate_grad_batches": 2}, steps=160
    ),
    "GAN, Standard": lambda s: play(s, adversarial=Standard()),
    "GAN, LeastSquares": lambda s: play(s, adversarial=LeastSquares()),
    "GAN, Hinge": lambda s: play(s, adversarial=Hinge()),
    "GAN, WassersteinGP": lambda s: play(s, adversarial=WassersteinGP()),
    "GAN, rates / 2": lambda s: play(s, lr=(2.5e-4, 1e-4)),
    "GAN, rates x 2": lambda s: play(s, lr=(1e-3, 4e-4)),
}
"""Of three."""
ONCE: dict[str, Run] = {
    "long": lambda s: restore(s, steps=500),
    "long, cosine": lambda s: restore(
        s,
        unet(s, norm="batch"),
        steps=400,
        scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=400),
        schedule_every="step",
    ),
    "long, colors": lambda s: colorize(s, steps=500),
    "long, GAN": lambda s: play(s, steps=400),
    "long, GAN, few images of a strong reconstruction": lambda s: play(s, steps=300, few=50),
    "colors, group norm, concat": lambda s: colorize(
        s, unet(s, in_channels=1, residual=False, norm="group", skip="concat", stage_residual=False)
    ),
    "colors, mean squared error": lambda s: colorize(s, loss=nn.MSELoss()),
    "colors, plain network of tanh": lambda s: colorize(s, chain(s, "tanh", channels=1, width=16)),
    "plain network": lambda s: restore(s, chain(s, width=16), steps=160),
    "plain network of ELU, group norm": lambda s: restore(s, chain(s, "elu", 5, width=16, norm=True), steps=160),
    "plain network, leaky, group norm": lambda s: restore(s, chain(s, "leaky", 6, width=16, norm=True), steps=160),
    "blocks that add": lambda s: restore(s, Residuals(s, 4, 1.0)),
    "sigmoids, batch norm": lambda s: restore(s, unet(s, activation="sigmoid", norm="batch")),
    "tanh": lambda s: restore(s, unet(s, activation="tanh")),
    "attention, pixel shuffle": lambda s: restore(s, unet(s, attention=[1], up="pixel_shuffle", norm="group")),
    "max pooling, bilinear": lambda s: restore(s, unet(s, down="max", up="bilinear")),
    "frozen encoder": lambda s: restore(s, frozen(s)),
    "starts at its input": lambda s: restore(s, silent(s)),
    "warm-up": lambda s: restore(
        s,
        scheduler=partial(lr_scheduler.LambdaLR, lr_lambda=lambda step: min(1.0, (step + 1) / 60)),
        steps=160,
        schedule_every="step",
    ),
    "one cycle": lambda s: restore(
        s, scheduler=partial(lr_scheduler.OneCycleLR, max_lr=6e-3, total_steps=161), steps=160, schedule_every="step"
    ),
    "SGD with momentum": lambda s: restore(s, lr=0.02, optimizer=optim.SGD, options={"momentum": 0.9}),
    "RMSprop": lambda s: restore(s, lr=1e-3, optimizer=optim.RMSprop),
    "AdamW, decay of 0.05": lambda s: restore(s, optimizer=optim.AdamW, options={"weight_decay": 0.05}),
    "small l2": lambda s: restore(s, l2=1e-5),
    "clipped": lambda s: restore(s, trainer={"gradient_clip_val": 0.1}),
    "Charbonnier": lambda s: restore(s, loss=Charbonnier()),
    "decibels as loss": lambda s: restore(s, loss=PSNRLoss(), lr=6e-4),
    "GAN, generator alone": lambda s: play(s, generator_epochs=1),
    "GAN, hints": lambda s: play(s, data=Hinted),
    "GAN, hints, long": lambda s: play(s, data=Hinted, steps=300),
    "GAN, spectral norm, hinge": lambda s: play(
        s, adversarial=Hinge(), discriminator={"norm": "none", "spectral_norm": True}
    ),
    "GAN, batch norm in both": lambda s: play(
        s, generator={"norm": "batch", "skip": "concat"}, discriminator={"norm": "batch"}
    ),
    "GAN, soft labels, two steps of the generator": lambda s: play(
        s, adversarial=Standard(real_label=0.9), generator_steps=2, steps=120
    ),
    "GAN, feature matching": lambda s: play(s, feature_matching_weight=10.0),
    "GAN, reconstruction of 30": lambda s: play(s, reconstruction_weight=30.0),
}


def runs(first_seed: int = 1) -> Iterator[tuple[str, partial]]:
    """Name of each, and what runs it."""
    for runs, seeds in ((TWICE, 2), (THRICE, 3), (ONCE, 1)):
        for name, run in runs.items():
            for seed in range(first_seed, first_seed + seeds):
                yield f"{name}, seed {seed}", partial(run, seed)
