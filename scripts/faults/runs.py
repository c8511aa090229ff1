"""Small whole runs of a denoiser and of a colorizing GAN, on waves that are made up, with everything watched."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from project.data.batch import Batch
from project.models import GANColorizer, ImageRestorer
from project.networks import PatchGAN, UNet
from workbench.findings import Finding
from workbench.watch import Watch

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
SIDE, BATCH = 24, 4
Spoil = Callable[[Batch, int], Batch]
"""Called with each batch and its step; -1 in validation."""
Run = Callable[[int], list[Finding]]
"""Seed -> what was found, in order."""


class Waves(L.LightningDataModule):
    """What both tasks learn from: one epoch of so many batches, of which only the first ``few`` differ."""

    def __init__(self, steps: int, seed: int, spoil: Spoil | None = None, few: int | None = None) -> None:
        super().__init__()
        self.steps, self.seed, self.few = steps, seed, few or steps
        self.spoil = spoil or (lambda pair, step: pair)

    def pair(self, number: int) -> Batch:
        raise NotImplementedError

    def _directions(self, number: int, channels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(number + 10**7 * self.seed)
        angle, phase = torch.rand(2, BATCH, channels, 1, 1, generator=generator) * 6.28
        place = torch.arange(SIDE) / SIDE * 6.28
        way = place[:, None] * angle.cos() + place * angle.sin()
        return angle, way + phase, torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self.spoil(self.pair(n % self.few), n) for n in range(self.steps)], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([self.spoil(self.pair(10**6 + n), -1) for n in range(4)], batch_size=None)


class Noisy(Waves):
    """Smooth waves of three colors, and noise on them."""

    normalization = {"input": ([0.5] * 3, [0.25] * 3), "target": ([0.5] * 3, [0.25] * 3)}  # noqa: RUF012

    def pair(self, number: int) -> Batch:
        _, way, noise = self._directions(number, 3)
        target = 0.5 + 0.4 * torch.sin(way)
        noisy = target + 0.1 * noise
        return Batch(noisy, target, noisy, torch.arange(BATCH))


class Gray(Waves):
    """Waves whose colors follow from their direction: what is gray in them tells how to color it."""

    normalization = {"input": ([0.5], [0.25]), "target": ([0.5] * 3, [0.25] * 3)}  # noqa: RUF012
    pairs = SimpleNamespace(keeps_lightness=True, hints=SimpleNamespace(channels=0))

    def pair(self, number: int) -> Batch:
        angle, way, _ = self._directions(number, 1)
        color = torch.cat([angle.cos(), angle.sin(), -angle.cos()], dim=1)
        target = (0.5 + 0.25 * torch.sin(2 * way) + 0.2 * color).clamp(0, 1)
        gray = (target * LUMA).sum(dim=1, keepdim=True)
        return Batch(gray, target, gray.expand(-1, 3, -1, -1), torch.arange(BATCH))


class Hinted(Gray):
    """The same, with the true color of a square in four further planes: the color, and where it is known."""

    normalization = {"input": ([0.5, 0, 0, 0, 0], [0.25, 1, 1, 1, 1]), "target": ([0.5] * 3, [0.25] * 3)}  # noqa: RUF012
    pairs = SimpleNamespace(keeps_lightness=True, hints=SimpleNamespace(channels=4))

    def pair(self, number: int) -> Batch:
        pair = super().pair(number)
        mask = torch.zeros(BATCH, 1, SIDE, SIDE)
        mask[..., 9:15, 5:11] = 1
        return pair._replace(input=torch.cat([pair.input, pair.target * mask, mask], dim=1))


def unet(seed: int, **more: Any) -> UNet:
    """The denoiser's network, as far as nothing else is said."""
    torch.manual_seed(seed)
    return UNet(**{"widths": [8, 16], "norm": "none", "skip": "add", "stage_residual": True, "residual": True, **more})


def restore(
    seed: int,
    network: torch.nn.Module | None = None,
    model: type[ImageRestorer] = ImageRestorer,
    lr: float = 2e-3,
    optimizer: type = torch.optim.Adam,
    options: dict[str, Any] | None = None,
    steps: int = 80,
    data: type[Waves] = Noisy,
    spoil: Spoil | None = None,
    few: int | None = None,
    callbacks: Sequence[L.Callback] = (),
    trainer: dict[str, Any] | None = None,
    **more: Any,
) -> list[Finding]:
    """Train a single network, to denoise where nothing else is said."""
    built = model(network or unet(seed), optimizer=lambda p: optimizer(p, lr=lr, **(options or {})), **more)
    return _watch(built, data(steps, seed, spoil, few), 40, callbacks, trainer or {})


def colorize(seed: int, network: torch.nn.Module | None = None, steps: int = 120, **more: Any) -> list[Finding]:
    """Colors from gray waves, by regression: what no straight line can do."""
    return restore(seed, network or unet(seed, in_channels=1, residual=False), steps=steps, data=Gray, **more)


def play(
    seed: int,
    model: type[GANColorizer] = GANColorizer,
    lr: tuple[float, float] = (5e-4, 2e-4),
    steps: int = 80,
    data: type[Waves] = Gray,
    spoil: Spoil | None = None,
    few: int | None = None,
    generator: dict[str, Any] | None = None,
    discriminator: dict[str, Any] | None = None,
    wrap: Callable[[torch.nn.Module], torch.nn.Module] = lambda network: network,
    **more: Any,
) -> list[Finding]:
    """Train a small GAN, whose generator may be wrapped in a network of one's own."""
    made = data(steps, seed, spoil, few)
    channels = len(made.normalization["input"][0])
    networks = (
        wrap(unet(seed, in_channels=channels, residual=False, **(generator or {}))),
        PatchGAN(channels + 3, **{"width": 8, "layers": 2, "norm": "instance", **(discriminator or {})}),
    )
    optimizers = [partial(torch.optim.Adam, lr=rate, betas=(0.5, 0.99)) for rate in lr]
    built = model(
        *networks,
        generator_optimizer=optimizers[0],
        discriminator_optimizer=optimizers[1],
        space="rgb",
        metrics={},
        **more,
    )
    return _watch(built, made, 20, (), {})


def _watch(
    model: L.LightningModule, data: Waves, every: int, callbacks: Sequence[L.Callback], trainer: dict[str, Any]
) -> list[Finding]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    watch = Watch()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "logger": False}
    quiet |= {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False, "val_check_interval": every}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the table says what is found
        warnings.simplefilter("ignore")
        L.Trainer(callbacks=[watch, *callbacks], **quiet, **trainer).fit(model, data)
    return watch.findings
