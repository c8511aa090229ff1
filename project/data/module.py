"""ImageDataModule: from a source's name to batches of (input, target) on the device."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn import functional as F

from project.data.augment import Augment, Augmenter
from project.data.batch import Pair, Raw
from project.data.cache import Cache
from project.data.catalogue import Catalogue, Settings, build_catalogue, read_catalogue
from project.data.images import Picture
from project.data.loader import (
    PictureDataset,
    ResumableLoader,
    check_sizes,
    start_worker,
    usable_cores,
    whole_batch,
)
from project.data.pairs import PairMaker, fitting_pairs
from project.data.pixels import PixelStore
from project.data.sampling import EvaluationSampler, TrainingSampler, picture_keys, picture_weights
from project.data.sources import partners
from project.data.splits import fingerprint
from project.data.statistics import Statistics
from project.data.tell import tell
from project.errors import UserError

InputRange = Literal["standardise", "zero_one", "minus_one_one"]
Balance = Literal["none", "tags"]
Protocol = Literal["seeded", "kair"]
STATISTICS = ("statistics", "target_statistics")


class ImageDataModule(LightningDataModule):
    """Pictures of any source, split, measured, augmented and made into pairs.

    After `prepare_data()` and `setup()` it has `splits` (train, val, test: lists of paths), `statistics` and
    `target_statistics` (mean and std of the training pictures, for pixels in [0, 1]) and `normalization`.

    Args:
        source: "demo" (photographs that come with scikit-image), "drawings" (cartoon characters that the project draws
            itself: lines, and their colours as the target), "folder", or a torchvision image data set such as CIFAR10
            or Flowers102. A given root comes first.
        root: folder of pictures, of any depth, or a list of such folders; train, val and test in it are kept.
        target_root: second folder of a folder pair: what the pictures of root, under the same names, should become.
        pairs: how a picture becomes input and target (class_path of a PairMaker); null: Gaussian noise of sigma 25, or
            both sides as they are where the source gives both (target_root, drawings).
        augment: random changes of the training pictures.
        crop: side of the random training crop in pixels; null takes whole pictures, then all of one size.
        channels: 3 for colour, 1 for grey.
        half_size_epochs: so many epochs train on pictures of half the size first, whose steps take a quarter of the
            time; 0 for none. Worth it where whole pictures train for long (progressive resizing).
        resize: shrink or grow every picture's shorter side to so many pixels first; null keeps the sizes.
        input_range: what the network sees: standardise (mean 0, std 1 of the training pictures), zero_one ([0, 1]) or
            minus_one_one ([-1, 1]).
        fractions: shares of train, val and test.
        split_seed: another number, another split.
        batch_size: training crops a step and process.
        eval_batch_size: pictures a validation or test step; over 1 wants equal sizes or eval_crop.
        crops_per_image: draws of each training picture an epoch; more make longer epochs, for few large pictures.
        eval_crop: side of the middle part that validation and test look at; null looks at whole pictures.
        num_workers: processes that load pictures; null: by the number of cores, 0 reads in the main process.
        on_bad_image: error stops at files that cannot be used and lists them; skip warns and goes on without them.
        statistics_images: measure mean and std on at most so many pictures; null measures on all.
        decoded_cache_gb: keep decoded pictures on disk, where they take less than this; 0 decodes every time.
        weights: sampling weight of each tag (folder or category), such as {cats: 3, dogs: 1}: how often it is drawn
            against the others, whatever its number of pictures; tags left out weigh 1.
        balance: tags draws from every folder or category equally often; none as many as there are.
        exclude: file with names of pictures to leave out, one a line, or a table with a column file (worst.csv of the
            inspect command, cut to the rows that are to go); all others stay in their splits.
        protocol: seeded (noise from the picture and the seed) or kair (the published test noise; test command only:
            every picture of root is a test picture).
        cache_dir: where everything computed once is kept. Deleted, it is made again, but for one thing: a folder that
            has grown since its first run is then split anew.
        seed: what the order, the augmentation and evaluation's noise follow from; null: seed_everything's, else 42.

    Raises:
        UserError: impossible values or combinations.
    """

    def __init__(
        self,
        source: str = "demo",
        root: str | list[str] | None = None,
        target_root: str | None = None,
        pairs: PairMaker | None = None,
        augment: Augment = Augment(),  # noqa: B008 it is frozen
        crop: int | None = 64,
        half_size_epochs: int = 0,
        channels: int = 3,
        resize: int | None = None,
        input_range: InputRange = "standardise",
        fractions: tuple[float, float, float] = (0.7, 0.2, 0.1),
        split_seed: int = 42,
        batch_size: int = 16,
        eval_batch_size: int = 1,
        crops_per_image: int = 1,
        eval_crop: int | None = None,
        num_workers: int | None = None,
        on_bad_image: Literal["error", "skip"] = "error",
        statistics_images: int | None = None,
        decoded_cache_gb: float = 2.0,
        weights: dict[str, float] | None = None,
        balance: Balance = "none",
        exclude: str | None = None,
        protocol: Protocol = "seeded",
        cache_dir: str = ".cache",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        root, target_root, exclude, cache_dir = map(_plain, (root, target_root, exclude, cache_dir))
        self.save_hyperparameters()
        # From the command line these two are plain class paths and numbers; objects made in Python would end up
        # pickled in the checkpoint, which then no longer loads with weights_only=True.
        objects = [name for name, value in self.hparams.items() if isinstance(value, PairMaker | Augment)]
        self.save_hyperparameters(ignore=objects)
        self.pairs = fitting_pairs(pairs, partners(source, root, target_root))
        self.augment = augment
        self.crop = crop
        self.half_size_epochs = half_size_epochs
        self.input_range = input_range
        self.batch_size = batch_size
        self.eval_batch_size = 1 if protocol == "kair" else eval_batch_size
        self.crops_per_image = crops_per_image
        self.eval_crop = None if protocol == "kair" else eval_crop
        self.num_workers = num_workers
        self.weights = weights
        self.balance = balance
        self.protocol = protocol
        self.cache_dir = cache_dir
        self.seed = seed
        self.settings = Settings(
            source=source,
            root=root,
            target_root=target_root,
            exclude=exclude,
            channels=channels,
            resize=resize,
            min_size=crop if crop is not None and resize is None and protocol == "seeded" else 2,
            fractions=tuple(fractions),
            split_seed=split_seed,
            on_bad_image=on_bad_image,
            statistics_images=statistics_images,
            decoded_cache_gb=decoded_cache_gb,
            whole="test" if protocol == "kair" else None,
        )
        self._check()
        self.splits: dict[str, list[str]] = {}
        self.statistics: Statistics | None = None
        self.target_statistics: Statistics | None = None
        self._catalogue: Catalogue | None = None

    def _check(self) -> None:
        """Values that are wrong whatever the pictures are."""
        for name in ("batch_size", "eval_batch_size", "crops_per_image", "crop", "eval_crop", "resize"):
            value = self.hparams[name]
            if value is not None and value < 1:
                raise UserError(f"data.{name} is {value}: it must be at least 1.")
        for name in ("num_workers", "seed", "half_size_epochs"):
            if (value := self.hparams[name]) is not None and value < 0:
                raise UserError(f"data.{name} is {value}: it must be 0 or more.")
        for name, kind in (("input_range", InputRange), ("balance", Balance), ("protocol", Protocol)):
            if (value := self.hparams[name]) not in get_args(kind):  # the command line looks at types, Python does not
                raise UserError(f"data.{name} is {value!r}: it must be one of {', '.join(get_args(kind))}.")
        resize = self.settings.resize
        if self.crop is not None and resize is not None and self.crop > resize:
            raise UserError(
                f"data.crop is {self.crop}, but data.resize makes every shorter side {resize} pixels.\n"
                f"Use --data.crop {resize}, or a larger --data.resize."
            )
        if self.weights and self.balance == "tags":
            raise UserError("data.weights and data.balance tags exclude each other: balance is all weights equal.")

    # Preparation

    def prepare_data(self) -> None:
        """Indexes, splits, measures and decodes, in one process; later runs only look whether files changed."""
        if self.trainer is not None and self.trainer.state.fn is not None:
            self._refuse_protocol(self.trainer.state.fn.value)
        if self._catalogue is not None:  # a fit's own test: the pictures stay those that it was trained with
            return
        workers = usable_cores() if self.num_workers is None else max(self.num_workers, 1)
        build_catalogue(self.settings, Cache(self.cache_dir), workers=workers)

    def setup(self, stage: str | None = None) -> None:
        """Reads what `prepare_data` has left, on every process.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            UserError: nothing prepared; protocol kair outside the test command; pictures that the pair maker has no use
                for; with a trainer that fits, also what the loaders raise.
        """
        self._refuse_protocol(stage)
        if self._catalogue is not None:
            return
        self._catalogue = read_catalogue(self.settings, Cache(self.cache_dir))
        self.splits = {split: [picture.path for picture in found] for split, found in self._catalogue.splits.items()}
        if self._catalogue.statistics is not None:
            self.statistics = self._catalogue.statistics
            self.target_statistics = self._catalogue.target_statistics
            self.pairs.check(self.statistics, self.target_statistics)
        if stage == "fit":
            self._announce()
            if self.trainer is not None:  # what cannot be loaded is said here, before a run's folder is filled
                self.train_dataloader()
                if self.trainer.limit_val_batches:
                    self.val_dataloader()

    def _refuse_protocol(self, stage: str | None) -> None:
        if self.protocol == "kair" and stage in ("fit", "validate"):
            raise UserError(
                f"data.protocol kair makes every picture a test picture, so there is nothing to {stage}.\n"
                "Use it with the test command:\n"
                "python -m project test --ckpt_path FILE --data.protocol kair --data.root FOLDER"
            )

    def _announce(self) -> None:
        numbers = ", ".join(f"{len(paths)} {split}" for split, paths in self.splits.items())
        assert self.statistics is not None
        mean, std = (" ".join(f"{value:.3f}" for value in part) for part in (self.statistics.mean, self.statistics.std))
        tell(f"Pictures: {numbers}; training mean {mean}, std {std}; cache: {self.cache_dir}")

    # Normalisation

    @property
    def normalization(self) -> dict[str, tuple[list[float], list[float]]]:
        """What to subtract and to divide by, for "input" and "target": (mean, std), one number a channel.

        The input has as many numbers as the network has input channels, a noise map's included.

        Raises:
            UserError: nothing is measured yet.
        """
        if self.statistics is None or self.target_statistics is None:
            raise UserError("The data's mean and std are not known: run prepare_data() and setup() first.")
        mean, std = self._range(self.statistics)
        return {"input": self.pairs.normalization(mean, std), "target": self._range(self.target_statistics)}

    def _range(self, statistics: Statistics) -> tuple[list[float], list[float]]:
        channels = len(statistics.mean)
        if self.input_range == "zero_one":
            return [0.0] * channels, [1.0] * channels
        if self.input_range == "minus_one_one":
            return [0.5] * channels, [0.5] * channels
        # A channel that never changes has no std to divide by; one grey level is the least that a picture can differ.
        return statistics.mean.tolist(), statistics.std.clamp_min(1 / 255).tolist()

    def state_dict(self) -> dict[str, Any]:
        """The statistics as plain numbers, and which pictures trained, for the checkpoint."""
        state: dict[str, Any] = {
            name: {"mean": found.mean.tolist(), "std": found.std.tolist(), "pixels": found.pixels}
            for name in STATISTICS
            if (found := getattr(self, name)) is not None
        }
        return state | {"splits": {part: fingerprint(found) for part, found in self.pictures.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the checkpoint's statistics where the pictures at hand have none of their own (protocol kair)."""
        for name in STATISTICS:
            found = state_dict.get(name)
            if found is not None and getattr(self, name) is None:
                setattr(
                    self, name, Statistics(torch.tensor(found["mean"]), torch.tensor(found["std"]), found["pixels"])
                )

    # Batches

    def train_dataloader(self) -> ResumableLoader:
        """Random crops in an order that follows from (seed, epoch).

        Raises:
            UserError: weights for unknown tags; without a crop, pictures of several sizes.
        """
        dataset = self.dataset("train", training=True)
        if self.crop is None and self.batch_size > 1:
            check_sizes(dataset.store, None, self.augment.quarter_turns, training=True)
        weights = None
        if self.weights or self.balance == "tags":
            weights = picture_weights([picture.tag for picture in self._catalogue.splits["train"]], self.weights or {})
        sampler = TrainingSampler(len(dataset), self._seed(), self.crops_per_image, weights)
        loader = self._loader(dataset, sampler, self.batch_size, drop_last=len(sampler) >= self.batch_size)
        loader.batches_done = self._batches_done
        return loader

    def _batches_done(self, loader: ResumableLoader) -> int:
        trainer = self.trainer
        if trainer is None or trainer.train_dataloader is not loader:
            return 0  # somebody else looks at training batches
        # Not only while the loop restarts: after a checkpoint of a validation that is over by the first batch.
        return trainer.fit_loop.epoch_loop.batch_progress.current.completed

    def val_dataloader(self) -> ResumableLoader:
        """Every validation picture once, the same every time."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> ResumableLoader:
        """Every test picture once, the same every time."""
        return self.evaluation_dataloader("test")

    @property
    def pictures(self) -> dict[str, list[Picture]]:
        """What is known of every picture of every split, in the order of its dataset; empty before `setup`."""
        return {} if self._catalogue is None else self._catalogue.splits

    def dataset(self, split: str, training: bool = False) -> PictureDataset:
        """The pictures of one split.

        Args:
            split: train, val or test.
            training: with random crops and changes; else as evaluation sees them.
        """
        if self._catalogue is None:
            raise UserError("The pictures are not read yet: run prepare_data() and setup() first.")
        keys = picture_keys([picture.digest for picture in self._catalogue.splits[split]], self._seed())
        store = self._catalogue.store(split)
        if training:
            return PictureDataset(store, keys, augmenter=Augmenter(self.augment, self.crop))
        return PictureDataset(store, keys, crop=self.eval_crop)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raw -> Pair, on the device. Other batches, of a loader of somebody's own, go through as they are."""
        if not isinstance(batch, Raw):
            return batch
        trainer = self.trainer
        training = trainer is not None and trainer.training
        # With trainer.overfit_batches the same few pairs have to come again, to be learnt by heart.
        drawn_anew = training and not trainer.overfit_batches
        return self.make_pair(batch, drawn_anew, half=training and trainer.current_epoch < self.half_size_epochs)

    def make_pair(self, batch: Raw, training: bool = False, half: bool = False) -> Pair:
        """What the model sees of a batch.

        Args:
            batch: as the loader gives it, on any device.
            training: random numbers from the device's generator; else from each picture and the seed.
            half: at half the size, each pixel the mean of four; noise and hints come after that.
        """
        image = _unit(batch.image, half)
        if self.protocol == "kair":
            pair = self.pairs.benchmark(image, batch.index)
        else:
            target = None if batch.target is None else _unit(batch.target, half)
            pair = self.pairs(image, target, batch.index, batch.seed, training)
        return pair if batch.filler is None else pair._replace(filler=batch.filler)

    def evaluation_dataloader(self, split: str) -> ResumableLoader:
        """Every picture of a split once, the same every time, as validation looks at them.

        Args:
            split: train, val or test.

        Raises:
            UserError: the split has no pictures; a batch would hold several sizes.
        """
        dataset = self.dataset(split)
        if len(dataset) == 0:
            raise UserError(
                f"There is no {split} picture: data.fractions are {list(self.settings.fractions)}.\n"
                "Give each part a share, such as --data.fractions '[0.7, 0.2, 0.1]', or a folder of its own."
            )
        if self.eval_batch_size > 1:
            check_sizes(dataset.store, self.eval_crop, False, training=False)
        return self._loader(
            dataset, EvaluationSampler(dataset.keys, self.eval_batch_size), self.eval_batch_size, drop_last=False
        )

    def _loader(
        self, dataset: PictureDataset, sampler: TrainingSampler | EvaluationSampler, batch_size: int, drop_last: bool
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


def _plain(value: Any) -> Any:
    """Paths as text: as objects they would be pickled in the checkpoint, like the pair maker."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, PurePath) else value
