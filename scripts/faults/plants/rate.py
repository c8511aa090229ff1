"""Rates and weights of losses that are far off."""

from __future__ import annotations

from functools import partial

import torch
from networks import chain
from runs import Gray, play, restore, unet

from plants.plant import Plant

SGD = torch.optim.SGD
Jump = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1.0 if step < 60 else 300.0)

PLANTS = [
    Plant("learning-rate-high", "Adam, rate x 1000", lambda s: restore(s, lr=2.0)),
    Plant("learning-rate-high", "SGD, rate 1000", lambda s: restore(s, lr=1000.0, optimizer=SGD)),
    Plant("learning-rate-high", "Adam, rate 0.3, plain network", lambda s: restore(s, chain(s), lr=0.3)),
    Plant(
        "learning-rate-high",
        "schedule x 300 at step 60",
        lambda s: restore(s, steps=120, scheduler=Jump, schedule_every="step"),
    ),
    Plant("learning-rate-high", "GAN: generator's rate x 1000", lambda s: play(s, lr=(0.5, 2e-4))),
    Plant("learning-rate-high", "GAN: discriminator's rate x 1000", lambda s: play(s, lr=(5e-4, 0.2))),
    Plant("learning-rate-low", "Adam, rate / 2000", lambda s: restore(s, lr=1e-6)),
    Plant("learning-rate-low", "Adam, rate / 20000", lambda s: restore(s, lr=1e-7)),
    Plant("learning-rate-low", "SGD with a rate of Adam", lambda s: restore(s, lr=1e-5, optimizer=SGD)),
    Plant("learning-rate-low", "GAN: generator's rate / 5000", lambda s: play(s, lr=(1e-7, 2e-4))),
    Plant("regularization-dominates", "l2 of 3", lambda s: restore(s, l2=3.0, steps=160)),
    Plant("regularization-dominates", "l1 of 1", lambda s: restore(s, l1=1.0, steps=160)),
    Plant(
        "regularization-dominates",
        "weight decay of 1 in Adam",
        lambda s: restore(
            s, unet(s, in_channels=1, residual=False), steps=160, options={"weight_decay": 1.0}, data=Gray
        ),
    ),
    Plant("adversarial-imbalance", "GAN: adversarial weight of 1e6", lambda s: play(s, adversarial_weight=1e6)),
    Plant(
        "adversarial-imbalance",
        "GAN: reconstruction is a sum",
        lambda s: play(s, reconstruction=torch.nn.L1Loss(reduction="sum")),
    ),
]
