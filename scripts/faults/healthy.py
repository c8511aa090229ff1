"""Varied runs in which nothing is wrong: whatever is called a fault in them is a false alarm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from runs import play, restore, unet

from project.diagnosis import Finding
from project.models.adversarial import Hinge, LeastSquares, Standard, WassersteinGP

NETWORKS: dict[str, dict[str, Any]] = {
    "no norm": {},
    "batch norm, concat": {"norm": "batch", "residual": False, "stage_residual": False, "skip": "concat"},
    "group norm, leaky": {"activation": "leaky_relu", "norm": "group"},
    "three levels, GELU": {"activation": "gelu", "widths": [6, 12, 24]},
    "dropout, SiLU": {"dropout": 0.1, "activation": "silu"},
    "layer norm, wide": {"norm": "layer", "widths": [16, 24]},
}
RATES = (6e-4, 2e-3, 6e-3)
ADVERSARIES = (Standard, LeastSquares, Hinge, WassersteinGP)


def runs() -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    """Name and run of each."""
    for seed in (1, 2):
        for name, network in NETWORKS.items():
            for rate in RATES:
                yield (
                    f"{name}, rate {rate:g}, seed {seed}",
                    lambda s=seed, n=network, r=rate: restore(s, unet(s, **n), lr=r),
                )
    for seed in (1, 2, 3):
        yield f"SGD, seed {seed}", lambda s=seed: restore(s, lr=0.05, optimizer=torch.optim.SGD)
        yield (
            f"bfloat16, mean squared error, seed {seed}",
            lambda s=seed: restore(s, loss=torch.nn.MSELoss(), trainer={"precision": "bf16-mixed"}),
        )
        yield (
            f"AdamW, two batches a step, seed {seed}",
            lambda s=seed: restore(s, optimizer=torch.optim.AdamW, trainer={"accumulate_grad_batches": 2}),
        )
        for adversary in ADVERSARIES:
            yield f"GAN, {adversary.__name__}, seed {seed}", lambda s=seed, a=adversary: play(s, adversarial=a())
        for scale in (0.5, 2.0):
            yield f"GAN, rates x {scale}, seed {seed}", lambda s=seed, k=scale: play(s, lr=(5e-4 * k, 2e-4 * k))
