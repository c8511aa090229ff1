"""Varied runs in which nothing is wrong: whatever is called a fault in them is a false alarm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from tasks import Hinted, Run, chain, colorize, edited, gray_unet, play, residuals, restore, unet
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR

from project.models.losses import Charbonnier, Hinge, LeastSquares, PSNRLoss, Standard, WassersteinGP

NETWORKS: dict[str, dict[str, Any]] = {
    "no norm": {},
    "batch norm, concat": {"norm": "batch", "residual": False, "stage_residual": False, "skip": "concat"},
    "group norm, leaky": {"activation": "leaky_relu", "norm": "group"},
    "three levels, GELU": {"activation": "gelu", "widths": [6, 12, 24]},
    "dropout, SiLU": {"dropout": 0.1, "activation": "silu"},
    "layer norm, wide": {"norm": "layer", "widths": [16, 24]},
}
COSINE = partial(CosineAnnealingLR, T_max=400)
WARM_UP = partial(LambdaLR, lr_lambda=lambda step: min(1.0, (step + 1) / 60))
ONE_CYCLE = partial(OneCycleLR, max_lr=6e-3, total_steps=161)

TWO_SEEDS: dict[str, Run] = {
    f"{name}, rate {rate:g}": restore(unet(**network), lr=rate)
    for name, network in NETWORKS.items()
    for rate in (6e-4, 2e-3, 6e-3)
}
THREE_SEEDS: dict[str, Run] = {
    "SGD": restore(lr=0.05, optimizer=optim.SGD),
    "bfloat16, mean squared error": restore(loss=nn.MSELoss(), trainer={"precision": "bf16-mixed"}),
    "AdamW, two batches a step": restore(optimizer=optim.AdamW, trainer={"accumulate_grad_batches": 2}, steps=160),
    "GAN, Standard": play(adversarial=Standard()),
    "GAN, LeastSquares": play(adversarial=LeastSquares()),
    "GAN, Hinge": play(adversarial=Hinge()),
    "GAN, WassersteinGP": play(adversarial=WassersteinGP()),
    "GAN, rates / 2": play(lr=(2.5e-4, 1e-4)),
    "GAN, rates x 2": play(lr=(1e-3, 4e-4)),
}
ONE_SEED: dict[str, Run] = {
    "long": restore(steps=500),
    "long, cosine": restore(unet(norm="batch"), steps=400, scheduler=COSINE, schedule_every="step"),
    "long, colors": colorize(steps=500),
    "long, GAN": play(steps=400),
    "long, GAN, few images of a strong reconstruction": play(steps=300, few=50),
    "colors, group norm, concat": colorize(gray_unet(norm="group", skip="concat", stage_residual=False)),
    "colors, mean squared error": colorize(loss=nn.MSELoss()),
    "colors, plain network of tanh": colorize(chain(nn.Tanh, channels=1, width=16)),
    "plain network": restore(chain(width=16), steps=160),
    "plain network of ELU, group norm": restore(chain(nn.ELU, 5, width=16, group_norm=True), steps=160),
    "plain network, leaky, group norm": restore(chain(nn.LeakyReLU, 6, width=16, group_norm=True), steps=160),
    "blocks that add": restore(residuals(4)),
    "sigmoids, batch norm": restore(unet(activation="sigmoid", norm="batch")),
    "tanh": restore(unet(activation="tanh")),
    "attention, pixel shuffle": restore(unet(attention=[1], up="pixel_shuffle", norm="group")),
    "max pooling, bilinear": restore(unet(down="max", up="bilinear")),
    "frozen encoder": restore(edited(unet(), lambda p: p.requires_grad_(False), "encoder", kind="")),
    "starts at its input": restore(edited(unet(), Tensor.zero_, "tail")),
    "warm-up": restore(scheduler=WARM_UP, steps=160, schedule_every="step"),
    "one cycle": restore(scheduler=ONE_CYCLE, steps=160, schedule_every="step"),
    "SGD with momentum": restore(lr=0.02, optimizer=partial(optim.SGD, momentum=0.9)),
    "RMSprop": restore(lr=1e-3, optimizer=optim.RMSprop),
    "AdamW, decay of 0.05": restore(optimizer=partial(optim.AdamW, weight_decay=0.05)),
    "small l2": restore(l2=1e-5),
    "clipped": restore(trainer={"gradient_clip_val": 0.1}),
    "Charbonnier": restore(loss=Charbonnier()),
    "decibels as loss": restore(loss=PSNRLoss(), lr=6e-4),
    "GAN, generator alone": play(generator_epochs=1),
    "GAN, hints": play(data=Hinted),
    "GAN, hints, long": play(data=Hinted, steps=300),
    "GAN, spectral norm, hinge": play(adversarial=Hinge(), discriminator={"norm": "none", "spectral_norm": True}),
    "GAN, batch norm in both": play(generator=gray_unet(norm="batch", skip="concat"), discriminator={"norm": "batch"}),
    "GAN, soft labels, two steps of the generator": play(
        adversarial=Standard(real_label=0.9), generator_steps=2, steps=120
    ),
    "GAN, feature matching": play(feature_matching_weight=10.0),
    "GAN, reconstruction of 30": play(reconstruction_weight=30.0),
}


def runs(first_seed: int = 1) -> Iterator[tuple[str, partial]]:
    """Name of each, and what runs it."""
    for number, table in ((2, TWO_SEEDS), (3, THREE_SEEDS), (1, ONE_SEED)):
        for name, run in table.items():
            for seed in range(first_seed, first_seed + number):
                yield f"{name}, seed {seed}", partial(run, seed)
