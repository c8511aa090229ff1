"""Noise on a clean image, made on the device."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Generator, Tensor

from project.data.batch import Batch
from project.data.pairs.base import PairedInput, PairMaker, as_range, draw, per_image
from workbench.console import rank_zero_print
from workbench.errors import UserError


class Noise(PairMaker):
    """A degraded image and the clean one. A degradation of your own overrides `degrade` alone."""

    @abstractmethod
    def degrade(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        """(B, C, H, W) in [0, 1] -> the degraded batch, not clipped, and further input channels (B, K, H, W) or None.

        All random numbers come from the generator; None: the device's own.
        """

    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        if training:
            degraded, extra = self.degrade(image, None)
        else:
            parts = (self.degrade(single, generator) for single, generator in per_image(image, seed))
            degraded, extras = zip(*parts, strict=True)
            degraded = torch.cat(degraded).to(image.device)
            extra = None if extras[0] is None else torch.cat(extras).to(image.device)
        return _batch(image, degraded, extra, index, seed)


class GaussianNoise(Noise):
    """White Gaussian noise, not clipped.

    Args:
        sigma: standard deviation in units of 0 to 255, or [low, high] for a uniform draw for each image.
        noise_map: append a channel with sigma / 255; false: the network must estimate it (blind).
        eval_sigma: the one sigma of validation and test where training draws from a range; null: as in training.
    """

    def __init__(
        self, sigma: float | tuple[float, float] = 25.0, noise_map: bool = False, eval_sigma: float | None = None
    ) -> None:
        self.sigma = as_range(sigma, "sigma", 0, 255)
        self.noise_map = noise_map
        self.eval_sigma = self.sigma if eval_sigma is None else as_range(eval_sigma, "eval_sigma", 0, 255)

    def degrade(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        sigma = draw(self.sigma if generator is None else self.eval_sigma, image, generator) / 255
        noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
        return torch.addcmul(image, noise, sigma.expand_as(image)), self._map(sigma, image)

    def normalization(self, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
        return ([*mean, 0.0], [*std, 1.0]) if self.noise_map else (mean, std)

    def benchmark(self, image: Tensor, index: Tensor) -> Batch:
        """KAIR's test noise: NumPy's legacy generator with seed 0 for each image anew, in float64, not clipped.

        Source: https://github.com/cszn/KAIR, main_test_dncnn.py and its siblings.
        """
        low, high = self.eval_sigma
        if low != high:
            raise UserError(
                f"data.protocol kair tests one sigma, and data.pairs.sigma is [{low:g}, {high:g}].\n"
                "Name the one to test: --data.pairs.eval_sigma 25"
            )
        noisy = []
        for single in image.cpu():
            clean = (single * 255).round().double().numpy().transpose(1, 2, 0) / 255
            noise = np.random.RandomState(0).normal(0, low / 255, clean.shape)
            noisy.append(torch.from_numpy((clean + noise).transpose(2, 0, 1)))
        degraded = torch.stack(noisy).float().to(image.device)
        sigma = image.new_full((len(image), 1, 1, 1), low / 255)
        return _batch(image, degraded, self._map(sigma, image), index)

    def _map(self, sigma: Tensor, image: Tensor) -> Tensor | None:
        return sigma.expand(-1, 1, *image.shape[2:]) if self.noise_map else None


class PoissonNoise(Noise):
    """Shot noise: each value is a count of photons, so dark parts are noisier against their brightness.

    Args:
        peak: photons that a value of 1.0 stands for, fewer are noisier; or [low, high], drawn for each image.
    """

    def __init__(self, peak: float | tuple[float, float] = 30.0) -> None:
        self.peak = as_range(peak, "peak", 0.01, 1e6)

    def degrade(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        peak = draw(self.peak, image, generator)
        return torch.poisson(image * peak, generator=generator) / peak, None


class SaltAndPepper(Noise):
    """Whole pixels turned white or black, as many of one as of the other.

    Args:
        amount: share of the pixels (0 to 1), or [low, high], drawn for each image.
    """

    def __init__(self, amount: float | tuple[float, float] = 0.05) -> None:
        self.amount = as_range(amount, "amount", 0, 1)

    def degrade(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        amount = draw(self.amount, image, generator)
        shape = (len(image), 1, *image.shape[2:])
        chance = torch.rand(shape, generator=generator, device=image.device, dtype=image.dtype)
        return image.masked_fill(chance < amount / 2, 0.0).masked_fill(chance >= 1 - amount / 2, 1.0), None


def resolve_pairs(pairs: PairMaker | None, targets: str | None) -> PairMaker:
    """The pair maker for images whose targets the key `targets` gives (None: no key), so that any config takes a pair.

    Without `pairs`: noise, or the images and their targets as they are.
    """
    if pairs is None:
        return GaussianNoise() if targets is None else PairedInput()
    if targets is None and pairs.uses_target == "required":
        raise UserError(f"data.pairs {type(pairs).__name__} needs two folders: set --data.target_root FOLDER.")
    if targets is not None and pairs.uses_target == "never":
        rank_zero_print(f"{targets} gives both sides of each pair: {type(pairs).__name__} is off.")
        return PairedInput()
    return pairs


def _batch(image: Tensor, degraded: Tensor, extra: Tensor | None, index: Tensor, seed: Tensor | None = None) -> Batch:
    given = degraded if extra is None else torch.cat([degraded, extra], dim=1)
    return Batch(given, image, degraded, index, seed)
