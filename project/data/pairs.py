"""From the clean picture to what a model sees and what it should answer, on the device.

A pair maker of one's own is one class that follows `PairMaker`, and one line of YAML:

    data:
      pairs:
        class_path: mypackage.MyPairs
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from project.data.batch import Pair
from project.data.tell import tell
from project.errors import UserError


class PairMaker(ABC):
    """Makes a batch's `Pair`.

    Attributes:
        partner: what it does with the second folder of a folder pair (`data.target_root`): "never" looks at it, "may"
            use it, or "must" have it.
    """

    partner: Literal["never", "may", "must"] = "never"

    @abstractmethod
    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Pair:
        """Makes the pair.

        Args:
            image: float32 in [0, 1], (B, C, H, W).
            target: float32 in [0, 1], (B, C', H, W), the partner of a folder pair, or None.
            index: int64, (B,), the picture's number in its split.
            seed: int64, (B,), not negative. In training another number for every draw; in evaluation the picture's
                own number, which follows from its file and the seed: whatever is random then must follow from it alone.
            training: whether random numbers may come from the device's own generator.
        """

    def normalization(self, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the input's channels, from those of the picture's."""
        return mean, std

    def benchmark(self, image: Tensor, index: Tensor) -> Pair:
        """The pair as the published test protocol (`data.protocol: kair`) makes it; only noise of one sigma has one."""
        raise UserError(f"data.protocol kair is defined for GaussianNoise, not for {type(self).__name__}.")


class Given(PairMaker):
    """Input and target as the two folders of a folder pair hold them; the do-nothing answer is the input."""

    partner = "must"

    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Pair:
        if target is None:
            raise UserError("data.pairs Given wants two folders: set --data.target_root FOLDER as well.")
        return Pair(image, target, image, index)


class Noise(PairMaker):
    """A picture and the same picture damaged. A noise of one's own overrides `damage` alone."""

    @abstractmethod
    def damage(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        """Damages a batch.

        Args:
            image: float32 in [0, 1], (B, C, H, W).
            generator: where all random numbers come from; None: the device's own.

        Returns:
            The damaged batch, not clipped, and further input channels (B, K, H, W) or None.
        """

    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Pair:
        if training:
            damaged, further = self.damage(image, None)
        else:
            damaged, further = self._damage_each(image, seed)
        return self._pair(image, damaged, further, index)

    def _damage_each(self, image: Tensor, seed: Tensor) -> tuple[Tensor, Tensor | None]:
        """Each picture from its own number on the CPU, so that no batch size, order or device changes the figures."""
        parts = []
        for picture, number in zip(image.cpu(), seed.tolist(), strict=True):
            parts.append(self.damage(picture[None], Generator().manual_seed(number)))
        damaged = torch.cat([part[0] for part in parts]).to(image.device)
        if parts[0][1] is None:
            return damaged, None
        return damaged, torch.cat([part[1] for part in parts]).to(image.device)

    @staticmethod
    def _pair(image: Tensor, damaged: Tensor, further: Tensor | None, index: Tensor) -> Pair:
        return Pair(damaged if further is None else torch.cat([damaged, further], dim=1), image, damaged, index)


class GaussianNoise(Noise):
    """White Gaussian noise, not clipped.

    Args:
        sigma: standard deviation in units of 0 to 255, or [low, high] for one drawn evenly for each picture.
        noise_map: append a channel that tells the network sigma / 255; false: it must find out (blind).
        eval_sigma: the one sigma of validation and test where training draws from a range; null: as in training.
    """

    def __init__(
        self, sigma: float | tuple[float, float] = 25.0, noise_map: bool = False, eval_sigma: float | None = None
    ) -> None:
        self.sigma = _range(sigma, "sigma", 0, 255)
        self.noise_map = noise_map
        self.eval_sigma = None if eval_sigma is None else _range(eval_sigma, "eval_sigma", 0, 255)

    def damage(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        bounds = self.sigma if generator is None or self.eval_sigma is None else self.eval_sigma
        sigma = _draw(bounds, image, generator) / 255
        noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
        return torch.addcmul(image, noise, sigma.expand_as(image)), self._map(sigma, image)

    def normalization(self, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
        return ([*mean, 0.0], [*std, 1.0]) if self.noise_map else (mean, std)

    def benchmark(self, image: Tensor, index: Tensor) -> Pair:
        """KAIR's test noise: NumPy's legacy generator with seed 0 for each picture anew, in float64, not clipped.

        Source: https://github.com/cszn/KAIR, main_test_dncnn.py and its siblings.
        """
        low, high = self.sigma if self.eval_sigma is None else self.eval_sigma
        if low != high:
            raise UserError(
                f"data.protocol kair tests one sigma, and data.pairs.sigma is [{low:g}, {high:g}].\n"
                "Name the one to test: --data.pairs.eval_sigma 25"
            )
        noisy = []
        for picture in image.cpu():
            clean = (picture * 255).round().double().numpy().transpose(1, 2, 0) / 255
            noise = np.random.RandomState(0).normal(0, low / 255, clean.shape)
            noisy.append(torch.from_numpy((clean + noise).transpose(2, 0, 1)))
        damaged = torch.stack(noisy).float().to(image.device)
        sigma = torch.full((len(image), 1, 1, 1), low / 255, device=image.device)
        return self._pair(image, damaged, self._map(sigma, image), index)

    def _map(self, sigma: Tensor, image: Tensor) -> Tensor | None:
        return sigma.expand(-1, 1, *image.shape[2:]) if self.noise_map else None


class PoissonNoise(Noise):
    """Shot noise: each value is a count of photons, so the dark parts are the noisier against their brightness.

    Args:
        peak: photons that a value of 1.0 stands for, fewer are noisier; or [low, high], one drawn evenly a picture.
    """

    def __init__(self, peak: float | tuple[float, float] = 30.0) -> None:
        self.peak = _range(peak, "peak", 0.01, 1e6)

    def damage(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        peak = _draw(self.peak, image, generator)
        return torch.poisson(image * peak, generator=generator) / peak, None


class SaltAndPepper(Noise):
    """Whole pixels turned white or black, as many of one as of the other.

    Args:
        amount: share of the pixels (0 to 1), or [low, high] for one drawn evenly for each picture.
    """

    def __init__(self, amount: float | tuple[float, float] = 0.05) -> None:
        self.amount = _range(amount, "amount", 0, 1)

    def damage(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        amount = _draw(self.amount, image, generator)
        shape = (len(image), 1, *image.shape[2:])
        chance = torch.rand(shape, generator=generator, device=image.device, dtype=image.dtype)
        return image.masked_fill(chance < amount / 2, 0.0).masked_fill(chance >= 1 - amount / 2, 1.0), None


def fitting_pairs(pairs: PairMaker | None, partners: str | None) -> PairMaker:
    """The pair maker that fits pictures with partners or without.

    A damage cannot be asked for where a partner says what the answer is: then the partners win, and it says so, so that
    any configuration can be pointed at a folder pair.

    Args:
        pairs: What the configuration asks for; None: noise, or the pictures and their partners as they are.
        partners: Which key gives them, such as "data.target_root"; None: they have none.
    """
    if pairs is None:
        return GaussianNoise() if partners is None else Given()
    if partners is None and pairs.partner == "must":
        raise UserError(f"data.pairs {type(pairs).__name__} wants two folders: set --data.target_root FOLDER.")
    if partners is not None and pairs.partner == "never":
        tell(f"{partners} gives both sides of each pair: {type(pairs).__name__} is off.")
        return Given()
    return pairs


def _range(value: float | tuple[float, float], name: str, least: float, most: float) -> tuple[float, float]:
    """One number or [low, high] as (low, high), checked."""
    bounds = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(bounds) != 2 or not least <= bounds[0] <= bounds[1] <= most:
        raise UserError(
            f"data.pairs.{name} is {value}: it must be a number, or [low, high], between {least:g} and {most:g}."
        )
    return float(bounds[0]), float(bounds[1])


def _draw(bounds: tuple[float, float], image: Tensor, generator: Generator | None) -> Tensor:
    """One number for each picture of the batch, evenly from the range: (B, 1, 1, 1)."""
    low, high = bounds
    shape = (len(image), 1, 1, 1)
    if low == high:
        return torch.full(shape, low, device=image.device, dtype=image.dtype)
    return torch.rand(shape, generator=generator, device=image.device, dtype=image.dtype) * (high - low) + low
