"""ImageDataModule: from a source's name to batches of (input, target) on the device."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal, get_args

from project.data.augment import Augment
from project.data.batches import Balance, PictureBatches
from project.data.catalog import Settings
from project.data.pairs import PairMaker, fitting_pairs
from project.data.prepared import InputRange, Protocol
from project.data.sources import partners
from workbench.errors import UserError


class ImageDataModule(PictureBatches):
    """Images of any source, split, measured, augmented and made into pairs.

    After `prepare_data()` and `setup()` it has `splits` (train, val, test: lists of paths), `statistics` and
    `target_statistics` (mean and std of the training images, for pixels in [0, 1]) and `normalization`.

    Args:
        source: "demo" (photographs that come with scikit-image), "drawings" (cartoon characters that the project draws
            itself: lines, and their colors as the target), "folder", or a torchvision image data set such as CIFAR10
            or Flowers102. A given root comes first.
        root: folder of images, of any depth, or a list of such folders; train, val and test in it are kept.
        target_root: second folder of a folder pair: what the images of root, under the same names, should become.
        pairs: how an image becomes input and target (class_path of a PairMaker); null: Gaussian noise of sigma 25, or
            both sides as they are where the source gives both (target_root, drawings).
        augment: random changes of the training images.
        crop: side of the random training crop in pixels; null takes whole images, then all of one size.
        channels: 3 for color, 1 for gray.
        half_size_epochs: so many epochs train on images of half the size first, whose steps take a quarter of the
            time; 0 for none. Worth it where whole images train for long (progressive resizing).
        resize: shrink or grow every image's shorter side to so many pixels first; null keeps the sizes.
        input_range: what the network sees: standardize (mean 0, std 1 of the training images), zero_one ([0, 1]) or
            minus_one_one ([-1, 1]).
        fractions: shares of train, val and test.
        split_seed: another number, another split.
        batch_size: training crops a step and process.
        eval_batch_size: images a validation or test step; over 1 wants equal sizes or eval_crop.
        crops_per_image: draws of each training image an epoch; more make longer epochs, for few large images.
        eval_crop: side of the middle part that validation and test look at; null looks at whole images.
        num_workers: processes that load images; null: by the number of cores, 0 reads in the main process.
        on_bad_image: error stops at files that cannot be used and lists them; skip warns and goes on without them.
        statistics_images: measure mean and std on at most so many images; null measures on all.
        decoded_cache_gb: keep decoded images on disk, where they take less than this; 0 decodes every time.
        weights: sampling weight of each tag (folder or category), such as {cats: 3, dogs: 1}: how often it is drawn
            against the others, whatever its number of images; tags left out weigh 1.
        balance: tags draws from every folder or category equally often; none as many as there are.
        exclude: file with names of images to leave out, one a line, or a table with a column file (worst.csv of the
            inspect command, cut to the rows that are to go); all others stay in their splits.
        protocol: seeded (noise from the image and the seed) or kair (the published test noise; test command only:
            every image of root is a test image).
        cache_dir: where everything computed once is kept. Deleted, it is made again, but for one thing: a folder that
            has grown since its first run is then split anew.
        seed: what the order, the augmentation and evaluation's noise follow from; null: seed_everything's, else 42.
        extra_pairs: folder that `ensemble --min_confidence` has written: pairs to train on as well.

    Raises:
        UserError: impossible values or combinations.
    """

    path_arguments = ("root", "target_root", "exclude", "extra_pairs")  # absolute in checkpoints, used from anywhere
    use_distributed_sampler = False  # it has samplers of its own

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
        input_range: InputRange = "standardize",
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
        extra_pairs: str | None = None,
    ) -> None:
        super().__init__()
        places = (root, target_root, exclude, extra_pairs, cache_dir)
        root, target_root, exclude, extra_pairs, cache_dir = map(_plain, places)
        self.save_hyperparameters()
        # From the command line these two are plain class paths and numbers; objects made in Python would end up
        # pickled in the checkpoint, which then no longer loads with weights_only=True.
        objects = [name for name, value in self.hparams.items() if isinstance(value, PairMaker | Augment)]
        self.save_hyperparameters(ignore=objects)
        owner = partners(source, root, target_root)
        self._has_partners = owner is not None
        self.pairs = fitting_pairs(pairs, owner)
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
            extra_pairs=extra_pairs,
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

    def _check(self) -> None:
        """Values that are wrong whatever the images are."""
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


def _plain(value: Any) -> Any:
    """Paths as text: as objects they would be pickled in the checkpoint, like the pair maker."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, PurePath) else value
