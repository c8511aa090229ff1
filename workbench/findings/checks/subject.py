"""What the checks look at: the data module's images and batches, and the model as a fit would start with it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from project.data.batch import Batch, RawBatch
from project.data.images import ImageRecord
from workbench.findings.checks.gallery import Gallery

SAMPLES = 500
"""Training images, as the network gets them, that figures are measured on."""
NUMBERS = 12_000_000
"""And no more values than these in their inputs, whatever their size."""
BATCHES = 40
HELPER = re.compile(r"loss|perceptual|metric|lpips|vgg|teacher|(^|[._])ema([._]|$)|^scores(\.|$)", re.IGNORECASE)
"""Names of what judges or accompanies a network, and is not trained itself."""
MAIN = ("network", "generator")


@dataclass(frozen=True)
class Part:
    """A network of the model, with something that it is given.

    Attributes:
        name: The model's attribute.
        module: The network itself, on the device; not to be changed.
        given: (B, C, H, W), what it takes from a training batch.
        wanted: (B, c, H, W), what it should answer; None for a discriminator.
        images: Channels of ``given``, from the first on, that hold an image; hints and maps come behind them.
    """

    name: str
    module: nn.Module
    given: Tensor
    wanted: Tensor | None
    pictures: int

    def woken(self) -> nn.Module:
        """A copy in eval mode; weights that start at 0, as last layers may, are small numbers in it."""
        network = copy.deepcopy(self.module).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in network.parameters():
                if weight.ndim >= 2 and weight.numel() > 1 and bool((weight == 0).all()):
                    scale = 0.1 / max(1, weight[0].numel()) ** 0.5
                    weight.copy_(scale * torch.randn(weight.shape, generator=generator))
        return network


@dataclass
class Subject:
    """Everything at hand before the first step.

    Attributes:
        model: Set up as for a fit: statistics taken, weights to start from loaded.
        data: Prepared and set up.
        trainer: Which has set them up.
        optimizers: What ``configure_optimizers`` made.
        pristine: A copy of the model from before it met a trainer, for trial runs.
        bad: "NAME: reason" of each file that cannot be used.
        skips_bad: Whether the user has said that such files are left out.
        config: The resolved configuration as plain values, where there is one.
    """

    model: LightningModule
    data: LightningDataModule
    trainer: Trainer
    optimizers: list[Optimizer]
    pristine: LightningModule
    bad: list[str] = field(default_factory=list)
    skips_bad: bool = False
    config: dict[str, Any] = field(default_factory=dict)

    # The images

    @property
    def pictures(self) -> dict[str, list[ImageRecord]]:
        """Of each split; empty where the data module is somebody's own."""
        return getattr(self.data, "images", {})

    @cached_property
    def gallery(self) -> Gallery:
        """Small versions of the images, and what can be told from them."""
        return Gallery.of(self.data, self.pictures)

    # The batches

    @property
    def device(self) -> torch.device:
        return self.trainer.strategy.root_device

    @cached_property
    def loader(self) -> Any:
        return self.data.train_dataloader()

    def epoch(self, number: int, most: int = BATCHES) -> Iterator[Any]:
        """The first batches of an epoch, as the loader gives them."""
        sampler = getattr(self.loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(number)
        # Not by zip or islice, which would leave a worker's next batch waiting.
        for position, batch in enumerate(self.loader, 1):
            yield batch
            if position == most:
                return

    def pair(self, batch: Any, training: bool = True) -> Batch:
        """What the model sees of a loader's batch."""
        batch = self.data.transfer_batch_to_device(batch, self.device, 0)
        if isinstance(batch, RawBatch) and hasattr(self.data, "make_batch"):
            return self.data.make_batch(batch, training=training)
        return self.data.on_after_batch_transfer(batch, 0)

    @cached_property
    def pairs(self) -> list[Batch]:
        """Training batches, some 500 images in all."""
        found, pictures, numbers = [], 0, 0
        for batch in self.epoch(0):
            pair = self.pair(batch)
            found.append(pair)
            pictures += len(pair.input)
            numbers += pair.input.numel()
            if pictures >= SAMPLES or numbers >= NUMBERS:
                break
        return found

    @cached_property
    def batch(self) -> Batch:
        """A few training images of one size: what passes through the networks are made with."""
        return self.several(8)

    def several(self, count: int, pixels: int = 8 * 128 * 128) -> Batch:
        """At most so many training images of one size, and at most so many pixels where that leaves two."""
        first = self.pairs[0]
        alike = [pair for pair in self.pairs if pair.input.shape[1:] == first.input.shape[1:]]
        joined = alike[0]
        for pair in alike[1:]:
            if len(joined.input) >= count:
                break
            joined = Batch(*[join_parts(one, other) for one, other in zip(joined, pair, strict=True)])
        height, width = joined.input.shape[-2:]
        count = max(2, min(count, pixels // (height * width)))
        return Batch(*[None if part is None else part[:count] for part in joined])

    # The networks

    @cached_property
    def main(self) -> str:
        """The attribute that holds the network which answers; empty where that is the whole model."""
        for name in MAIN:
            if isinstance(getattr(self.model, name, None), nn.Module):
                return name
        children = [
            name
            for name, child in self.model.named_children()
            if not HELPER.search(name) and any(True for _ in child.parameters())
        ]
        return children[0] if len(children) == 1 else ""

    @cached_property
    def parts(self) -> list[Part]:
        """The network that answers, and the discriminator where there is one."""
        pair, model = self.batch, self.model
        module = getattr(model, self.main) if self.main else model
        given = self.to_memory_format(pair.input)
        found = [Part(self.main or "model", module, given, self.encode(pair.target), self.picture_channels)]
        discriminator = getattr(model, "discriminator", None)
        if isinstance(discriminator, nn.Module):
            seen = torch.cat([given, self.to_memory_format(self.encode(pair.target))], dim=1)
            found.append(Part("discriminator", discriminator, seen, None, self.picture_channels))
        return found

    def to_memory_format(self, x: Tensor) -> Tensor:
        """As the networks take it: in the model's memory order, and in its precision where all of it is 16 bits."""
        x = self.trainer.precision_plugin.convert_input(x)
        return self.model.to_memory_format(x) if hasattr(self.model, "to_memory_format") else x

    def encode(self, target: Tensor) -> Tensor:
        """A target image as the network should answer it."""
        space = getattr(self.model, "space", None)
        return space.encode(target) if hasattr(space, "encode") else target

    @cached_property
    def hint_channels(self) -> int:
        hints = getattr(getattr(self.data, "pairs", None), "hints", None)
        return int(getattr(hints, "channels", 0) or 0)

    @cached_property
    def picture_channels(self) -> int:
        """Channels of the input that hold an image; hints and maps come behind them."""
        channels = self.pairs[0].input.shape[1]
        if self.hint_channels:
            return channels - self.hint_channels
        settings = getattr(self.data, "settings", None)
        return min(channels, getattr(settings, "channels", channels))

    @property
    def colors(self) -> bool:
        """Whether the task is to give colors to images without."""
        pairs = getattr(self.data, "pairs", None)
        return hasattr(self.model, "space") or hasattr(pairs, "hints") or bool(getattr(pairs, "keeps_lightness", False))

    @property
    def starts_from_others(self) -> bool:
        """Whether the weights are those of an earlier training."""
        return bool(getattr(self.model, "hparams", {}).get("init_from"))

    @property
    def pretrained(self) -> bool:
        """Whether a part of the model was built with weights that have learned something."""
        return any(getattr(module, "pretrained", False) for module in self.model.modules())

    def autocast(self) -> Any:
        """The precision that the model trains in."""
        return self.trainer.precision_plugin.forward_context()


def join_parts(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if one is None or other is None else torch.cat([one, other])
