"""What every pair maker is, and the random numbers that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Generator, Tensor

from project.data.batch import Batch
from project.data.statistics import Statistics
from workbench.errors import UserError


class PairMaker(ABC):
    """Makes a `Batch` on the device."""

    # What it does with the second folder of a folder pair (`data.target_root`).
    uses_target: Literal["never", "optional", "required"] = "never"
    # Whether the input's first channel is the target's lightness (CIELAB's L / 100), which a model may copy.
    keeps_lightness: bool = False

    @abstractmethod
    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        """Make the pair.

        Args:
            image: float32 in [0, 1], (B, C, H, W).
            target: float32 in [0, 1], (B, C', H, W), of a folder pair, else None.
            index: int64, (B,), the image's number in its split.
            seed: int64, (B,), not negative: of every draw in training; in evaluation the image's own.
            training: random numbers come from the device's own generator; else they must follow from the seed.
        """

    def normalization(self, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the input's channels, from those of the image's."""
        return mean, std

    def check(self, statistics: Statistics, target_statistics: Statistics) -> None:  # noqa: B027 most take any images
        """Raise a UserError where images of these statistics (training split; inputs, targets) cannot serve."""

    def preview(self, pair: Batch) -> dict[str, Tensor]:
        """The input for a person: heading -> (B, 1 or 3, H, W), in [0, 1] or a little outside."""
        return {"input": pair.baseline}

    def benchmark(self, image: Tensor, index: Tensor) -> Batch:
        """The pair of a published test protocol (`data.protocol: kair`); only noise of one sigma has one."""
        raise UserError(f"data.protocol kair is defined for GaussianNoise, not for {type(self).__name__}.")


class PairedInput(PairMaker):
    """Input and target are the images of a folder pair; the do-nothing baseline is the input."""

    uses_target = "required"

    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        return Batch(image, target, image, index, seed)


def per_image(image: Tensor, seed: Tensor) -> Iterator[tuple[Tensor, Generator]]:
    """A batch's images (1, C, H, W) on the CPU, each with a generator seeded by its own number.

    For evaluation: what is random then depends on no batch size, order or device.
    """
    for single, number in zip(image.cpu(), seed.tolist(), strict=True):
        yield single[None], Generator().manual_seed(number)


def as_range(value: float | tuple[float, float], key: str, low: float, high: float) -> tuple[float, float]:
    """A number or [low, high] as (low, high); a UserError names `data.pairs.KEY` where it leaves the limits."""
    found = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(found) != 2 or not low <= found[0] <= found[1] <= high:
        raise UserError(
            f"data.pairs.{key} is {value}: it must be a number, or [low, high], between {low:g} and {high:g}."
        )
    return float(found[0]), float(found[1])


def draw(limits: tuple[float, float], image: Tensor, generator: Generator | None) -> Tensor:
    """A uniform random number for each image of a batch, (B, 1, 1, 1); generator None: the device's own."""
    low, high = limits
    if low == high:
        return image.new_full((len(image), 1, 1, 1), low)
    chance = torch.rand((len(image), 1, 1, 1), generator=generator, device=image.device, dtype=image.dtype)
    return chance * (high - low) + low
