"""From prepared images to batches: the loaders, and what the model sees of each batch on the device."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from project.data.augment import Augment, Augmenter
from project.data.batch import Batch, RawBatch
from project.data.extra import maker_of_extra
from project.data.loader import (
    ImageDataset,
    ResumableLoader,
    check_sizes,
    start_worker,
    usable_cores,
    whole_batch,
)
from project.data.pixels import PixelStore
from project.data.prepared import PreparedPictures
from project.data.sampling import EvaluationSampler, TrainingSampler, picture_keys, picture_weights
from workbench.errors import UserError
from workbench.lightning_private import batches_done

Balance = Literal["none", "tags"]


class PictureBatches(PreparedPictures):
    """Batches of images, and pairs of batches.

    Attributes:
        augment: Random changes of the training images.
        crop: Side of the random training crop in pixels, or None.
        half_size_epochs: So many epochs train at half the size.
        batch_size: Training crops a step and process.
        eval_batch_size: Images a validation or test step.
        crops_per_image: Draws of each training image an epoch.
        eval_crop: Side of the middle part that evaluation looks at, or None.
        weights: Sampling weight of each tag, or None.
        balance: tags or none.
        seed: What order, augmentation and evaluation's noise follow from, or None.
    """

    augment: Augment
    crop: int | None
    half_size_epochs: int
    batch_size: int
    eval_batch_size: int
    crops_per_image: int
    eval_crop: int | None
    weights: dict[str, float] | None
    balance: Balance
    seed: int | None

    def setup(self, stage: str | None = None) -> None:
        """Reads what `prepare_data` has left, on every process.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            UserError: see `PreparedPictures.setup`; with a trainer that fits, also what the loaders raise.
        """
        first = self._catalog is None
        super().setup(stage)
        if first and stage == "fit" and self.trainer is not None:  # said here, before a run's folder is filled
            self.train_dataloader()
            if self.trainer.limit_val_batches:
                self.val_dataloader()

    def train_dataloader(self) -> ResumableLoader:
        """Random crops in an order that follows from (seed, epoch).

        Raises:
            UserError: weights for unknown tags; without a crop, images of several sizes.
        """
        dataset = self.dataset("train", training=True)
        if self.crop is None and self.batch_size > 1:
            check_sizes(dataset.store, None, self.augment.quarter_turns, training=True)
        weights = None
        if self.weights or self.balance == "tags":
            weights = picture_weights([picture.tag for picture in self._catalog.splits["train"]], self.weights or {})
        sampler = TrainingSampler(len(dataset), self._seed(), self.crops_per_image, weights)
        loader = self._loader(dataset, sampler, self.batch_size, drop_last=len(sampler) >= self.batch_size)
        loader.batches_done = self._batches_done
        return loader

    def _batches_done(self, loader: ResumableLoader) -> int:
        trainer = self.trainer
        if trainer is None or trainer.train_dataloader is not loader:
            return 0  # somebody else looks at training batches
        # Not only while the loop restarts: after a checkpoint of a validation that is over by the first batch.
        return batches_done(trainer)

    def val_dataloader(self) -> ResumableLoader:
        """Every validation image once, the same every time."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> ResumableLoader:
        """Every test image once, the same every time."""
        return self.evaluation_dataloader("test")

    def dataset(self, split: str, training: bool = False) -> ImageDataset:
        """The images of one split.

        Args:
            split: train, val or test.
            training: with random crops and changes; else as evaluation sees them.
        """
        if self._catalog is None:
            raise UserError("The images are not read yet: run prepare_data() and setup() first.")
        keys = picture_keys([picture.digest for picture in self._catalog.splits[split]], self._seed())
        store = self._catalog.store(split)
        if training:
            return ImageDataset(store, keys, augmenter=Augmenter(self.augment, self.crop))
        return ImageDataset(store, keys, crop=self.eval_crop)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """RawBatch -> Batch, on the device. Other batches, of a loader of somebody's own, go through as they are."""
        if not isinstance(batch, RawBatch):
            return batch
        trainer = self.trainer
        training = trainer is not None and trainer.training
        # With trainer.overfit_batches the same few pairs have to come again, to be learned by heart.
        drawn_anew = training and not trainer.overfit_batches
        return self.make_pair(batch, drawn_anew, half=training and trainer.current_epoch < self.half_size_epochs)

    def make_pair(self, batch: RawBatch, training: bool = False, half: bool = False) -> Batch:
        """What the model sees of a batch.

        Args:
            batch: as the loader gives it, on any device.
            training: random numbers from the device's generator; else from each image and the seed.
            half: at half the size, each pixel the mean of four; noise and hints come after that.
        """
        pair = self._make_pair(batch, training, half)
        return pair if batch.is_padding is None else pair._replace(is_padding=batch.is_padding)

    def _make_pair(self, batch: RawBatch, training: bool, half: bool) -> Batch:
        image = _unit(batch.image, half)
        if self.protocol == "kair":
            return self.pairs.benchmark(image, batch.index)
        target = None if batch.target is None else _unit(batch.target, half)
        if target is None or self.settings.extra_pairs is None or self._has_partners:
            return self.pairs(image, target, batch.index, batch.seed, training)
        own = len(image) - len(target)
        extra = maker_of_extra(self.pairs)(image[own:], target, batch.index[own:], batch.seed[own:], training)
        if own == 0:
            return extra
        pair = self.pairs(image[:own], None, batch.index[:own], batch.seed[:own], training)
        joined = [None if part is None else torch.cat([part, more]) for part, more in zip(pair, extra, strict=True)]
        return Batch(*joined)

    def evaluation_dataloader(self, split: str) -> ResumableLoader:
        """Every image of a split once, the same every time, as validation looks at them.

        Args:
            split: train, val or test.

        Raises:
            UserError: the split has no images; a batch would hold several sizes.
        """
        dataset = self.dataset(split)
        if len(dataset) == 0:
            raise UserError(
                f"There is no {split} image: data.fractions are {list(self.settings.fractions)}.\n"
                "Give each part a share, such as --data.fractions '[0.7, 0.2, 0.1]', or a folder of its own."
            )
        if self.eval_batch_size > 1:
            check_sizes(dataset.store, self.eval_crop, False, training=False)
        sampler = EvaluationSampler(dataset.keys, batch_size=self.eval_batch_size)
        return self._loader(dataset, sampler, self.eval_batch_size, drop_last=False)

    def _loader(
        self, dataset: ImageDataset, sampler: TrainingSampler | EvaluationSampler, batch_size: int, drop_last: bool
    ) -> ResumableLoader:
        workers = self._workers(dataset.store)
        return ResumableLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=whole_batch,
            worker_init_fn=start_worker,
            # Its own, or each pass would take a number from the generator that the training noise comes from.
            generator=torch.Generator().manual_seed(self._seed()),
        )

    def _workers(self, store: PixelStore) -> int:
        if self.num_workers is not None:
            return self.num_workers
        cores = usable_cores() // (self.trainer.num_devices if self.trainer is not None else 1)
        # Cutting crops out of mapped memory takes less than handing them over from another process.
        return 0 if store.mapped and cores <= 2 else max(0, min(8, cores - 1))

    def _seed(self) -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "42")) if self.seed is None else self.seed


def _unit(pixels: Tensor, half: bool) -> Tensor:
    """uint8 -> [0, 1]."""
    values = pixels.float().div_(255)
    return F.avg_pool2d(values, 2, ceil_mode=True) if half else values
