"""ImageDataModule: from a source's name to batches of (input, target) on the device.

file --decode--> uint8 --crop, augment (workers)--> RawBatch --to the device--> [0, 1] --pairs--> Batch
"""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn import functional as F

from project.data.augment import Augment, Augmenter
from project.data.batch import Batch, RawBatch
from project.data.cache import Cache
from project.data.catalog import Catalog, Settings, build_catalog
from project.data.images import ImageRecord, usable_cores
from project.data.loader import (
    EvaluationSampler,
    ImageDataset,
    ResumableLoader,
    TrainingSampler,
    image_keys,
    image_weights,
)
from project.data.pairs import Coloring, PairedInput, PairMaker, resolve_pairs
from project.data.pixels import PixelStore
from project.data.sources import partners
from project.data.splits import fingerprint
from project.data.statistics import Statistics
from workbench.checkpoint import save_plain_hyperparameters
from workbench.console import rank_zero_print
from workbench.errors import UserError
from workbench.lightning_private import batches_done


class ImageDataModule(LightningDataModule):
    """Images of any source, split, measured, augmented and made into pairs.

    Args:
        source: "demo" (photographs), "drawings" (lines and their colors), "folder", or a torchvision image data set
            such as CIFAR10. A given root comes first.
        root: folder of images, of any depth, or a list of such folders; train, val and test in it are kept.
        target_root: second folder of a folder pair: what the images of root, under the same names, should become.
        target: image, or mask: target_root holds one-channel masks of class numbers (of palettes the indices), never
            interpolated, measured or normalized; the batch's target is int64 (B, H, W).
        pairs: how an image becomes input and target (class_path of a PairMaker); null: Gaussian noise of sigma 25, or
            both sides as they are where the source gives both (target_root, drawings).
        augment: random changes of the training images.
        crop: side of the random training crop in pixels; null takes whole images, then all of one size.
        half_size_epochs: so many epochs train on images of half the size first, whose steps take a quarter of the time.
        channels: 3 for color, 1 for gray.
        resize: shrink or grow every image's shorter side to so many pixels first; null keeps the sizes.
        input_range: what the network sees: standardize (mean 0, std 1 of the training images), zero_one, minus_one_one.
        fractions: shares of train, val and test.
        batch_size: training crops per step and process.
        eval_batch_size: images per validation or test step; over 1 needs equal sizes or eval_crop.
        crops_per_image: draws of each training image per epoch; more make longer epochs, for few large images.
        eval_crop: side of the middle part that validation and test use; null takes whole images.
        num_workers: processes that load images; null: by the number of cores, 0 reads in the main process.
        on_bad_image: error stops at files that cannot be used and lists them; skip warns and leaves them out.
        decoded_cache_gb: keep decoded images on disk if they take less than this; 0 decodes every time.
        weights: sampling weight of each tag (folder or category), whatever its number of images: {cats: 3}; others 1,
            so {} draws all equally often. null: as many of each as there are.
        exclude: file with names of images to leave out: one a line, or a table with a column file. Others keep splits.
        protocol: seeded (noise from the image and the seed) or kair (the published test noise on every image of root).
        cache_dir: where everything computed once is kept. It may be deleted; a folder that grew is then split anew.
        seed: what the order, the augmentation and evaluation's noise follow from; null: seed_everything's, else 42.
        extra_pairs: folder that `ensemble --min_confidence` has written: pairs to train on as well.
    """

    path_arguments = ("root", "target_root", "exclude", "extra_pairs")  # the command line makes these absolute
    use_distributed_sampler = False  # its loaders' own samplers give each rank its part

    def __init__(
        self,
        source: str = "demo",
        root: str | list[str] | None = None,
        target_root: str | None = None,
        target: Literal["image", "mask"] = "image",
        pairs: PairMaker | None = None,
        augment: Augment = Augment(),  # noqa: B008 it is frozen
        crop: int | None = 64,
        half_size_epochs: int = 0,
        channels: Literal[1, 3] = 3,
        resize: int | None = None,
        input_range: Literal["standardize", "zero_one", "minus_one_one"] = "standardize",
        fractions: tuple[float, float, float] = (0.7, 0.2, 0.1),
        batch_size: int = 16,
        eval_batch_size: int = 1,
        crops_per_image: int = 1,
        eval_crop: int | None = None,
        num_workers: int | None = None,
        on_bad_image: Literal["error", "skip"] = "error",
        decoded_cache_gb: float = 2.0,
        weights: dict[str, float] | None = None,
        exclude: str | None = None,
        protocol: Literal["seeded", "kair"] = "seeded",
        cache_dir: str = ".cache",
        seed: int | None = None,
        extra_pairs: str | None = None,
    ) -> None:
        super().__init__()
        given = {name: _as_text(value) for name, value in locals().items() if name not in ("self", "__class__")}
        save_plain_hyperparameters(self, given)
        _check_arguments(given)
        kair = protocol == "kair"
        owner = partners(source, root, target_root)
        self.pairs = resolve_pairs(pairs, owner)
        if target == "mask" and (owner != "data.target_root" or isinstance(self.pairs, Coloring)):
            raise UserError("data.target mask needs --data.target_root FOLDER, and no coloring in data.pairs.")
        self.augment, self.crop, self.crops_per_image, self.weights = augment, crop, crops_per_image, weights
        self.batch_size, self.half_size_epochs = batch_size, half_size_epochs
        self.eval_batch_size, self.eval_crop = (1, None) if kair else (eval_batch_size, eval_crop)
        self.input_range, self.protocol, self.seed = input_range, protocol, seed
        self.num_workers, self.cache_dir = num_workers, given["cache_dir"]
        self.settings = Settings(
            **{name: value for name, value in given.items() if name in Settings.__dataclass_fields__},
            min_size=crop if crop is not None and resize is None and not kair else 2,
            only_split="test" if kair else None,
        )
        self.splits: dict[str, list[str]] = {}  # train, val, test: paths; empty before `setup`
        self.statistics: Statistics | None = None  # of the training images, for pixels in [0, 1]
        self.target_statistics: Statistics | None = None  # the same object without target images
        self._catalog: Catalog | None = None

    # Before the first batch: whose images are in which split, their mean and std

    def prepare_data(self) -> None:
        """Index, split, measure and decode, in one process; all others, and later runs, find it in the cache."""
        if self._catalog is None:  # a fit's own test: the images stay those that it was trained with
            self._catalog = build_catalog(self.settings, self.pairs, Cache(self.cache_dir))

    def setup(self, stage: str | None = None) -> None:
        """Fill splits and statistics, on every process; UserError for images that `pairs` cannot use."""
        if self.splits:
            return
        self.prepare_data()
        self.splits = {split: [record.path for record in records] for split, records in self.images.items()}
        self.statistics = self._catalog.statistics
        self.target_statistics = self._catalog.target_statistics
        if self.statistics is not None:
            self.pairs.check(self.statistics, self.target_statistics)
        if stage != "fit":
            return
        self.train_dataloader()  # its errors come here, before a run's folder is filled
        if self.trainer is not None and self.trainer.limit_val_batches:
            self.val_dataloader()
        extra = f" ({self._catalog.extra['images']} of them extra pairs)" if self._catalog.extra else ""
        train, val, test = (len(paths) for paths in self.splits.values())
        mean, std = (" ".join(f"{v:.3f}" for v in part) for part in (self.statistics.mean, self.statistics.std))
        counts = f"{train} train{extra}, {val} val, {test} test"
        rank_zero_print(f"Images: {counts}; training mean {mean}, std {std}; cache: {self.cache_dir}")

    @property
    def images(self) -> dict[str, list[ImageRecord]]:
        """What is known of every image of every split, in the order of its dataset; empty before `prepare_data`."""
        return {} if self._catalog is None else self._catalog.splits

    @property
    def normalization(self) -> dict[str, tuple[list[float], list[float]]]:
        """(mean, std) of "input" and "target", one number per channel, a noise map's included; masks: (0, 1)."""
        if self.statistics is None or self.target_statistics is None:
            raise UserError("The data's mean and std are not known: run setup() first.")
        masks = self.settings.target == "mask"
        target = ([0.0], [1.0]) if masks else self.target_statistics.scale(self.input_range)
        return {"input": self.pairs.normalization(*self.statistics.scale(self.input_range)), "target": target}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint, as plain values: the statistics, and a fingerprint of each split."""
        splits: dict[str, Any] = {part: fingerprint(records) for part, records in self.images.items()}
        if self._catalog is not None and self._catalog.extra:
            splits["train"]["extra_pairs"] = self._catalog.extra
        measured = {"statistics": self.statistics, "target_statistics": self.target_statistics}
        return {name: found.to_plain() for name, found in measured.items() if found is not None} | {"splits": splits}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the checkpoint's statistics if the images at hand have none of their own (protocol kair)."""
        for name in ("statistics", "target_statistics"):
            if name in state_dict and getattr(self, name) is None:
                setattr(self, name, Statistics.from_plain(state_dict[name]))

    # Loaders

    def train_dataloader(self) -> ResumableLoader:
        """Random crops in an order that follows from (seed, epoch)."""
        dataset = self.dataset("train", training=True)
        if self.crop is None and self.batch_size > 1:
            dataset.check_sizes()
        tags = [record.tag for record in self.images["train"]]
        weights = None if self.weights is None else image_weights(tags, self.weights)
        sampler = TrainingSampler(len(dataset), self._seed(), self.crops_per_image, weights)
        loader = self._loader(dataset, sampler, self.batch_size, drop_last=len(sampler) >= self.batch_size)
        loader.batches_done = self._batches_done
        return loader

    def _batches_done(self, loader: ResumableLoader) -> int:
        if self.trainer is None or self.trainer.train_dataloader is not loader:
            return 0  # somebody else reads training batches
        # Not only while the loop restarts: after a checkpoint of a validation that is over by the first batch.
        return batches_done(self.trainer)

    def val_dataloader(self) -> ResumableLoader:
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> ResumableLoader:
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, split: str) -> ResumableLoader:
        """Every image of a split (train, val or test) once, the same every time."""
        dataset = self.dataset(split)
        if self.eval_batch_size > 1:
            dataset.check_sizes()
        sampler = EvaluationSampler(dataset.keys, batch_size=self.eval_batch_size)
        return self._loader(dataset, sampler, self.eval_batch_size, drop_last=False)

    def dataset(self, split: str, training: bool = False) -> ImageDataset:
        """The images of a split, as evaluation sees them, or with random crops and changes for training."""
        if not self.images.get(split):
            raise UserError(
                f"There is no {split} image. Run setup() first; data.fractions must give each split a share, and\n"
                "data.protocol kair, which makes every image a test image, is for the command test alone."
            )
        keys = image_keys([record.digest for record in self.images[split]], self._seed())
        augmenter = Augmenter(self.augment, self.crop, self.settings.target == "mask") if training else None
        store = PixelStore(self.images[split], file=self._catalog.file, **self.settings.pixels)
        return ImageDataset(store, keys, augmenter, None if training else self.eval_crop)

    def _loader(
        self, dataset: ImageDataset, sampler: TrainingSampler | EvaluationSampler, batch_size: int, drop_last: bool
    ) -> ResumableLoader:
        workers = self.num_workers
        if workers is None:
            cores = usable_cores() // (self.trainer.num_devices if self.trainer is not None else 1)
            # Cutting crops out of mapped memory takes less than sending them from another process.
            workers = 0 if dataset.store.mapped and cores <= 2 else max(0, min(8, cores - 1))
        # A generator of its own, or each pass would take a number from the one that the training noise comes from.
        generator = torch.Generator().manual_seed(self._seed())
        options = {"batch_size": batch_size, "drop_last": drop_last, "num_workers": workers, "generator": generator}
        return ResumableLoader(dataset, sampler=sampler, pin_memory=torch.cuda.is_available(), **options)

    def _seed(self) -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "42")) if self.seed is None else self.seed

    # On the device: what the model sees of a batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """RawBatch -> Batch. Other batches, of a loader of somebody's own, pass unchanged."""
        if not isinstance(batch, RawBatch):
            return batch
        training = self.trainer is not None and self.trainer.training
        # With trainer.overfit_batches the same few pairs have to come again.
        drawn_anew = training and not self.trainer.overfit_batches
        return self.make_batch(batch, drawn_anew, half=training and self.trainer.current_epoch < self.half_size_epochs)

    def make_batch(self, raw: RawBatch, training: bool = False, half: bool = False) -> Batch:
        """What the model sees of a batch, on any device.

        Random numbers come in `training` from the device's generator, else from each image and the seed. At `half` the
        size each pixel is the mean of four; noise and hints come after that.
        """
        image = _unit(raw.image, half)
        if raw.target is not None and self.settings.target == "mask":
            target = raw.target[:, 0, :: 2 if half else 1, :: 2 if half else 1].long()
            batch = Batch(image, target, None, raw.index, raw.seed)
        elif self.protocol == "kair":
            batch = self.pairs.benchmark(image, raw.index)
        elif raw.target is None:
            batch = self.pairs(image, None, raw.index, raw.seed, training)
        else:
            batch = self._with_targets(image, _unit(raw.target, half), raw.index, raw.seed, training)
        return batch if raw.is_padding is None else batch._replace(is_padding=raw.is_padding)

    def _with_targets(self, image: Tensor, target: Tensor, index: Tensor, seed: Tensor, training: bool) -> Batch:
        takes = isinstance(self.pairs, Coloring) or self.pairs.uses_target != "never"
        own = len(image) - len(target)  # the user's images come first, then extra pairs, which have their targets
        maker = self.pairs if takes else PairedInput()
        paired = maker(image[own:], target, index[own:], seed[own:], training)
        if own == 0:
            return paired
        batch = self.pairs(image[:own], None, index[:own], seed[:own], training)
        sides = zip(batch, paired, strict=True)
        return Batch(*(None if first is None else torch.cat([first, second]) for first, second in sides))

    # Hooks of the `check` command, which alone needs what they import

    def checks(self) -> list[Any]:
        """The checks that know images."""
        from project.data.checks import CHECKS

        return list(CHECKS)

    @property
    def signal_channels(self) -> int:
        """Leading channels of the input that show an image; noise maps and hints come behind them."""
        given, hints = len(self.normalization["input"][0]), getattr(getattr(self.pairs, "hints", None), "channels", 0)
        return given - hints if hints else min(given, self.settings.channels)

    def prepare_for_check(self) -> Any:
        """Have unusable files become a finding, where a fit would end with an error; returns it, or None."""
        from project.data.checks import prepare_for_check

        return prepare_for_check(self)

    def check_images(self, context: Any, folder: Any) -> list[Any]:
        """Draw the first batches into a folder; returns the files."""
        from project.data.check_images import draw_batches

        return draw_batches(context, folder)


def _unit(pixels: Tensor, half: bool) -> Tensor:
    """uint8 -> [0, 1]."""
    values = pixels.float().div_(255)
    return F.avg_pool2d(values, 2, ceil_mode=True) if half else values


def _as_text(value: Any) -> Any:
    """Paths as text: as objects they would be pickled in the checkpoint."""
    if isinstance(value, list | tuple):
        return [_as_text(one) for one in value]
    return str(value) if isinstance(value, PurePath) else value


def _check_arguments(given: dict[str, Any]) -> None:
    """Raise a UserError for values that are wrong whatever the images are."""
    positive = dict.fromkeys(("batch_size", "eval_batch_size", "crops_per_image", "crop", "eval_crop", "resize"), 1)
    for name, least in {**positive, "num_workers": 0, "seed": 0, "half_size_epochs": 0}.items():
        if given[name] is not None and given[name] < least:
            raise UserError(f"data.{name} is {given[name]}: it must be at least {least}.")
    for name, kind in get_type_hints(ImageDataModule.__init__).items():  # the command line looks at types, Python not
        if get_origin(kind) is Literal and given[name] not in get_args(kind):
            raise UserError(f"data.{name} is {given[name]!r}: it must be one of {', '.join(map(str, get_args(kind)))}.")
    shares = list(given["fractions"])
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0 or shares[0] <= 0:
        raise UserError(f"data.fractions are {shares}: train (above 0), val and test must sum to 1: [0.7, 0.2, 0.1].")
    if given["crop"] and given["resize"] and given["crop"] > given["resize"]:
        raise UserError(f"data.crop is {given['crop']}, larger than data.resize: use --data.crop {given['resize']}.")
    if given["target"] == "mask" and (given["extra_pairs"] or given["protocol"] == "kair"):
        raise UserError("data.target mask goes with neither data.extra_pairs nor data.protocol kair.")
