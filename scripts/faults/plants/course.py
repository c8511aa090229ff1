"""What the course of the loss tells: data that change, few images, scores that measure something else."""

from __future__ import annotations

from typing import Any

import torch
from runs import restore, unet
from torch import Tensor

from plants.plant import Plant
from project.data.batch import Batch
from project.models.metrics import ImageMean


def unrelated(pair: Batch, step: int) -> Batch:
    return pair._replace(target=torch.rand_like(pair.target))


def shuffled(pair: Batch, step: int) -> Batch:
    return pair._replace(target=pair.target.roll(1, 0))


def since(step: int, change: Any) -> Any:
    return lambda pair, now: change(pair) if now >= step else pair


def mixed(pair: Batch) -> Batch:
    return shuffled(pair, 0)


def louder(pair: Batch) -> Batch:
    return pair._replace(input=pair.target + 5 * (pair.input - pair.target))


def negative(pair: Batch) -> Batch:
    return pair._replace(target=1 - pair.target)


def darker(pair: Batch) -> Batch:
    return pair._replace(input=pair.input / 255)


def in_turns(length: int, change: Any) -> Any:
    return lambda pair, now: change(pair) if now >= 0 and now // length % 2 else pair


def noisy_targets(few: int) -> Any:
    """The same noise on an image's target whenever it comes, as in photographs of which there is one noisy shot."""

    def change(pair: Batch, step: int) -> Batch:
        noise = torch.randn(pair.target.shape, generator=torch.Generator().manual_seed(step % few))
        return pair if step < 0 else pair._replace(target=pair.target + 0.3 * noise)

    return change


def large(seed: int, **more: Any) -> torch.nn.Module:
    return unet(seed, widths=[16, 24], residual=False, **more)


class Error(ImageMean):
    """An error that says that more of it is better."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().flatten(1).mean(1)


class Sharpness(ImageMean):
    """How large the steps from pixel to pixel are: noise is sharp."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        return output.diff(dim=-1).abs().flatten(1).mean(1)


PLANTS = [
    Plant("loss-surge", "noise x 5 from step 80 on", lambda s: restore(s, spoil=since(80, louder), steps=140)),
    Plant(
        "loss-surge",
        "targets of the next image from step 80 on",
        lambda s: restore(s, spoil=since(80, mixed), steps=140),
    ),
    Plant("loss-surge", "images / 255 from step 80 on", lambda s: restore(s, spoil=since(80, darker), steps=140)),
    Plant(
        "loss-oscillates",
        "sorted: ten batches, ten negatives",
        lambda s: restore(s, spoil=in_turns(10, negative), steps=140),
    ),
    Plant(
        "loss-oscillates",
        "sorted: four batches, four negatives",
        lambda s: restore(s, spoil=in_turns(4, negative), steps=120),
    ),
    Plant(
        "overfitting",
        "four images, noisy targets",
        lambda s: restore(s, large(s), lr=4e-3, few=1, steps=240, spoil=noisy_targets(1)),
    ),
    Plant(
        "overfitting",
        "eight images, noisy targets",
        lambda s: restore(s, large(s), lr=4e-3, few=2, steps=280, spoil=noisy_targets(2)),
    ),
    Plant(
        "metric-disagrees", "an error counted as a score", lambda s: restore(s, steps=120, metrics={"error": Error()})
    ),
    Plant(
        "metric-disagrees",
        "sharpness of a denoiser",
        lambda s: restore(s, steps=120, metrics={"sharpness": Sharpness()}),
    ),
    Plant("loss-flat", "targets that are noise", lambda s: restore(s, spoil=unrelated, steps=220)),
    Plant("loss-flat", "targets of the next image", lambda s: restore(s, spoil=shuffled, steps=220)),
]
