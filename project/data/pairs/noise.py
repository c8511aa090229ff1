"""Noise on a clean image, made on the device."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Generator, Tensor

from project.data.batch import Batch
from project.data.pairs.base import PairMaker, each_alone
from project.data.pairs.ranges import bounds, draw
from workbench.errors import UserError


class Noise(PairMaker):
    """An image and the same image damaged. A noise of one's own overrides `damage` alone."""

    @abstractmethod
    def damage(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        """Damages a batch.

        Args:
            image: float32 in [0, 1], (B, C, H, W).
            generator: where all random numbers come from; None: the device's own.

        Returns:
            The damaged batch, not clipped, and further input channels (B, K, H, W) or None.
        """

    def __call__(self, image: Tensor, target: Tensor | None, index: Tensor, seed: Tensor, training: bool) -> Batch:
        if training:
            damaged, further = self.damage(image, None)
        else:
            damaged, further = self._damage_each(image, seed)
        return self._pair(image, damaged, further, index, seed)

    def _damage_each(self, image: Tensor, seed: Tensor) -> tuple[Tensor, Tensor | None]:
        """Each image from its own number on the CPU, so that no batch size, order or device changes the figures."""
        parts = [self.damage(picture, generator) for picture, generator in each_alone(image, seed)]
        damaged = torch.cat([part[0] for part in parts]).to(image.device)
        if parts[0][1] is None:
            return damaged, None
        return damaged, torch.cat([part[1] for part in parts]).to(image.device)

    @staticmethod
    def _pair(
        image: Tensor, damaged: Tensor, further: Tensor | None, index: Tensor, seed: Tensor | None = None
    ) -> Batch:
        return Batch(damaged if further is None else torch.cat([damaged, further], dim=1), image, damaged, index, seed)


class GaussianNoise(Noise):
    """White Gaussian noise, not clipped.

    Args:
        sigma: standard deviation in units of 0 to 255, or [low, high] for one drawn evenly for each image.
        noise_map: append a channel that tells the network sigma / 255; false: it must find out (blind).
        eval_sigma: the one sigma of validation and test where training draws from a range; null: as in training.
    """

    def __init__(
        self, sigma: float | tuple[float, float] = 25.0, noise_map: bool = False, eval_sigma: float | None = None
    ) -> None:
        self.sigma = bounds(sigma, "sigma", 0, 255)
        self.noise_map = noise_map
        self.eval_sigma = None if eval_sigma is None else bounds(eval_sigma, "eval_sigma", 0, 255)

    def damage(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        limits = self.sigma if generator is None or self.eval_sigma is None else self.eval_sigma
        sigma = draw(limits, image, generator) / 255
        noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
        return torch.addcmul(image, noise, sigma.expand_as(image)), self._map(sigma, image)

    def normalization(self, mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
        return ([*mean, 0.0], [*std, 1.0]) if self.noise_map else (mean, std)

    def benchmark(self, image: Tensor, index: Tensor) -> Batch:
        """KAIR's test noise: NumPy's legacy generator with seed 0 for each image anew, in float64, not clipped.

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
        peak: photons that a value of 1.0 stands for, fewer are noisier; or [low, high], one drawn evenly an image.
    """

    def __init__(self, peak: float | tuple[float, float] = 30.0) -> None:
        self.peak = bounds(peak, "peak", 0.01, 1e6)

    def damage(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        peak = draw(self.peak, image, generator)
        return torch.poisson(image * peak, generator=generator) / peak, None


class SaltAndPepper(Noise):
    """Whole pixels turned white or black, as many of one as of the other.

    Args:
        amount: share of the pixels (0 to 1), or [low, high] for one drawn evenly for each image.
    """

    def __init__(self, amount: float | tuple[float, float] = 0.05) -> None:
        self.amount = bounds(amount, "amount", 0, 1)

    def damage(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        amount = draw(self.amount, image, generator)
        shape = (len(image), 1, *image.shape[2:])
        chance = torch.rand(shape, generator=generator, device=image.device, dtype=image.dtype)
        return image.masked_fill(chance < amount / 2, 0.0).masked_fill(chance >= 1 - amount / 2, 1.0), None
