"""Small whole runs of a denoiser and of a colorizing GAN, with everything watched: their data, networks, training."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from project.data.batch import Batch
from project.models import GANColorizer, ImageRestorer
from project.networks import PatchGAN, UNet
from project.networks.normalize import Normalized
from workbench.findings import Finding
from workbench.watch import Watch

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
SIDE, BATCH = 24, 4
Spoil = Callable[[Batch, int], Batch]  # called with each batch and its step; -1 in validation
Make = Callable[[int], nn.Module]  # seed -> network
Run = Callable[[int], list[Finding]]  # seed -> what was found, in order


class Waves(L.LightningDataModule):
    """One epoch of so many batches, of which only the first ``few`` differ; a subclass makes the pairs."""

    normalization = {"input": ([0.5] * 3, [0.25] * 3), "target": ([0.5] * 3, [0.25] * 3)}  # noqa: RUF012

    def __init__(self, steps: int, seed: int, spoil: Spoil | None = None, few: int | None = None) -> None:
        super().__init__()
        self.steps, self.seed, self.few = steps, seed, few or steps
        self.spoil = spoil or (lambda pair, step: pair)

    def waves(self, number: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
        """Directions, phases at each pixel, and noise."""
        generator = torch.Generator().manual_seed(number + 10**7 * self.seed)
        angle, phase = torch.rand(2, BATCH, channels, 1, 1, generator=generator) * 6.28
        place = torch.arange(SIDE) / SIDE * 6.28
        phases = place[:, None] * angle.cos() + place * angle.sin() + phase
        return angle, phases, torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self.spoil(self.pair(n % self.few), n) for n in range(self.steps)], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([self.spoil(self.pair(10**6 + n), -1) for n in range(4)], batch_size=None)


class Noisy(Waves):
    """Smooth waves of three colors, and noise on them."""

    def pair(self, number: int) -> Batch:
        _, phases, noise = self.waves(number, 3)
        target = 0.5 + 0.4 * torch.sin(phases)
        noisy = target + 0.1 * noise
        return Batch(noisy, target, noisy, torch.arange(BATCH))


class Gray(Waves):
    """Waves whose colors follow from their direction, which the gray image shows."""

    normalization = Waves.normalization | {"input": ([0.5], [0.25])}
    pairs = SimpleNamespace(keeps_lightness=True, hints=SimpleNamespace(channels=0))

    def pair(self, number: int) -> Batch:
        angle, phases, _ = self.waves(number, 1)
        color = torch.cat([angle.cos(), angle.sin(), -angle.cos()], dim=1)
        target = (0.5 + 0.25 * torch.sin(2 * phases) + 0.2 * color).clamp(0, 1)
        gray = (target * LUMA).sum(dim=1, keepdim=True)
        return Batch(gray, target, gray.expand(-1, 3, -1, -1), torch.arange(BATCH))


class Hinted(Gray):
    """The same with four hint planes: the true color of a square, and where it is known."""

    normalization = Waves.normalization | {"input": ([0.5, 0, 0, 0, 0], [0.25, 1, 1, 1, 1])}
    pairs = SimpleNamespace(keeps_lightness=True, hints=SimpleNamespace(channels=4))

    def pair(self, number: int) -> Batch:
        pair = super().pair(number)
        mask = torch.zeros(BATCH, 1, SIDE, SIDE)
        mask[..., 9:15, 5:11] = 1
        return pair._replace(input=torch.cat([pair.input, pair.target * mask, mask], dim=1))


def seeded(build: Callable[..., nn.Module]) -> Callable[..., Make]:
    """Decorator: a function that builds a network becomes one that returns how to, from a seed."""

    def configure(*arguments: Any, **options: Any) -> Make:
        def make(seed: int) -> nn.Module:
            torch.manual_seed(seed)
            return build(*arguments, **options)

        return make

    return configure


@seeded
def unet(**options: Any) -> nn.Module:
    """The denoiser's network."""
    defaults = {"widths": [8, 16], "norm": "none", "skip": "add", "stage_residual": True, "residual": True}
    return UNet(**{**defaults, **options})


def gray_unet(**options: Any) -> Make:
    """A colorizer's network."""
    return unet(**{"in_channels": 1, "residual": False, **options})


@seeded
def chain(
    activation: type[nn.Module] = nn.ReLU, layers: int = 4, width: int = 8, channels: int = 3, group_norm: bool = False
) -> nn.Module:
    """Convolutions in a row, each but the last with its activation, between a normalization and its inverse."""
    parts: list[nn.Module] = []
    for before, after in pairwise([channels, *[width] * (layers - 1), 3]):
        parts.append(conv(before, after))
        if group_norm and after == width:
            parts.append(nn.GroupNorm(4, after))
        parts.append(activation())
    return Normalized(nn.Sequential(*parts[:-1]), channels, 3)


def edited(make: Make, change: Callable[[Tensor], object], part: str = "", kind: str = "weight") -> Make:
    """The network with the weights (or biases) of one part, or of all, changed in place."""

    def changed(seed: int) -> nn.Module:
        network = make(seed)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if part in name and name.endswith(kind):
                    change(parameter)
        return network

    return changed


def conv(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ConvReLU(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


@seeded
def recurrent(times: int, std: float) -> nn.Module:
    """One convolution, applied over and over."""
    head, core, tail = conv(3, 8), ConvReLU(8, 8, 3, padding=1), conv(8, 3)
    nn.init.normal_(core.weight, std=std)
    return Residual(head, *[core] * times, tail)


@seeded
def residuals(count: int) -> nn.Module:
    """Residual blocks without a norm."""
    head, tail = conv(3, 8), conv(8, 3)
    blocks = nn.Sequential(*(Residual(conv(8, 8), nn.ReLU(), conv(8, 8)) for _ in range(count)))
    return Residual(OrderedDict(head=head, blocks=blocks, tail=tail))


def restore(
    network: Make = unet(),  # noqa: B008
    model: type[ImageRestorer] = ImageRestorer,
    lr: float = 2e-3,
    optimizer: Callable[..., Any] = torch.optim.Adam,
    **options: Any,
) -> Run:
    """A run of a single network; further options are those of `fit` and of the model."""

    def build(seed: int, **more: Any) -> ImageRestorer:
        return model(network(seed), optimizer=partial(optimizer, lr=lr), **more)

    return partial(fit, build=build, **options)


def colorize(network: Make = gray_unet(), **options: Any) -> Run:  # noqa: B008
    """Colors from gray waves, by regression: a task that no linear model solves."""
    return restore(network, **{"data": Gray, "steps": 120, **options})


def play(
    model: type[GANColorizer] = GANColorizer,
    lr: tuple[float, float] = (5e-4, 2e-4),
    generator: Make | None = None,
    discriminator: dict[str, Any] | None = None,
    data: type[Waves] = Gray,
    **options: Any,
) -> Run:
    """A run of a small GAN; further options are those of `fit` and of the model."""
    channels = len(data.normalization["input"][0])

    def build(seed: int, **more: Any) -> GANColorizer:
        return model(
            (generator or gray_unet(in_channels=channels))(seed),
            PatchGAN(channels + 3, **{"width": 8, "layers": 2, "norm": "instance", **(discriminator or {})}),
            generator_optimizer=partial(torch.optim.Adam, lr=lr[0], betas=(0.5, 0.99)),
            discriminator_optimizer=partial(torch.optim.Adam, lr=lr[1], betas=(0.5, 0.99)),
            **{"space": "rgb", "metrics": {}, **more},
        )

    return partial(fit, build=build, data=data, val_check_interval=20, **options)


def fit(
    seed: int,
    build: Callable[..., L.LightningModule],
    steps: int = 80,
    data: type[Waves] = Noisy,
    spoil: Spoil | None = None,
    few: int | None = None,
    val_check_interval: int = 40,
    callbacks: Sequence[L.Callback] = (),
    trainer: dict[str, Any] | None = None,
    **options: Any,
) -> list[Finding]:
    """Build the model with the further options, train it, and return what was found."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model, watch = build(seed, **copy.deepcopy(options)), Watch()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "logger": False}
    quiet |= {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False, **(trainer or {})}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the table shows what is found
        warnings.simplefilter("ignore")
        lightning = L.Trainer(callbacks=[watch, *callbacks], val_check_interval=val_check_interval, **quiet)
        lightning.fit(model, data(steps, seed, spoil, few))
    return watch.findings
