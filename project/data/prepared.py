"""What a data module knows before its first batch: whose images are in which split, their mean and std."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule

from project.data.cache import Cache
from project.data.catalog import Catalog, Settings, build_catalog, read_catalog
from project.data.extra import check_kind, read_manifest
from project.data.images import ImageRecord
from project.data.loader import usable_cores
from project.data.pairs import PairMaker
from project.data.splits import fingerprint
from project.data.statistics import Statistics
from workbench.console import rank_zero_print
from workbench.errors import UserError

InputRange = Literal["standardize", "zero_one", "minus_one_one"]
Protocol = Literal["seeded", "kair"]
STATISTICS = ("statistics", "target_statistics")


class PreparedPictures(LightningDataModule):
    """Images found, checked, split and measured; `project.data.batches` makes batches of them.

    Attributes:
        settings: What the images are.
        pairs: How an image becomes input and target.
        splits: train, val and test: lists of paths; empty before `setup`.
        statistics: Mean and std of the training images, for pixels in [0, 1]; None before `setup`.
        target_statistics: Those of their partners; the same object where they have none.
        input_range: What the network sees.
        protocol: seeded or kair.
        cache_dir: Where everything computed once is kept.
        num_workers: Processes that load images, or None.
    """

    settings: Settings
    pairs: PairMaker
    input_range: InputRange
    protocol: Protocol
    cache_dir: str
    num_workers: int | None

    def __init__(self) -> None:
        super().__init__()
        self.splits: dict[str, list[str]] = {}
        self.statistics: Statistics | None = None
        self.target_statistics: Statistics | None = None
        self._catalog: Catalog | None = None

    def prepare_data(self) -> None:
        """Indexes, splits, measures and decodes, in one process; later runs only look whether files changed."""
        if self.trainer is not None and self.trainer.state.fn is not None:
            self._refuse_protocol(self.trainer.state.fn.value)
        if self._catalog is not None:  # a fit's own test: the images stay those that it was trained with
            return
        if self.settings.extra_pairs is not None and self.protocol != "kair":
            check_kind(read_manifest(self.settings.extra_pairs), self.pairs, self.settings.channels)
        workers = usable_cores() if self.num_workers is None else max(self.num_workers, 1)
        build_catalog(self.settings, Cache(self.cache_dir), workers=workers)

    def setup(self, stage: str | None = None) -> None:
        """Reads what `prepare_data` has left, on every process.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            UserError: nothing prepared; protocol kair outside the test command; images that the pair maker has no use
                for.
        """
        self._refuse_protocol(stage)
        if self._catalog is not None:
            return
        self._catalog = read_catalog(self.settings, Cache(self.cache_dir))
        self.splits = {split: [picture.path for picture in found] for split, found in self._catalog.splits.items()}
        if self._catalog.statistics is not None:
            self.statistics = self._catalog.statistics
            self.target_statistics = self._catalog.target_statistics
            self.pairs.check(self.statistics, self.target_statistics)
        if stage == "fit":
            self._announce()

    @property
    def pictures(self) -> dict[str, list[ImageRecord]]:
        """What is known of every image of every split, in the order of its dataset; empty before `setup`."""
        return {} if self._catalog is None else self._catalog.splits

    def _refuse_protocol(self, stage: str | None) -> None:
        if self.protocol == "kair" and stage in ("fit", "validate"):
            raise UserError(
                f"data.protocol kair makes every image a test image, so there is nothing to {stage}.\n"
                "Use it with the test command:\n"
                "python -m project test --ckpt_path FILE --data.protocol kair --data.root FOLDER"
            )

    def _announce(self) -> None:
        extra = sum(bool(picture.origin) for picture in self.pictures["train"])
        more = {"train": f" ({extra} of them extra pairs)"} if extra else {}
        numbers = ", ".join(f"{len(paths)} {split}{more.get(split, '')}" for split, paths in self.splits.items())
        assert self.statistics is not None
        mean, std = (" ".join(f"{value:.3f}" for value in part) for part in (self.statistics.mean, self.statistics.std))
        rank_zero_print(f"Images: {numbers}; training mean {mean}, std {std}; cache: {self.cache_dir}")

    # Normalization

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
        # A channel that never changes has no std to divide by; one gray level is the least that an image can differ.
        return statistics.mean.tolist(), statistics.std.clamp_min(1 / 255).tolist()

    def state_dict(self) -> dict[str, Any]:
        """The statistics as plain numbers, and which images trained, for the checkpoint."""
        state: dict[str, Any] = {
            name: {"mean": found.mean.tolist(), "std": found.std.tolist(), "pixels": found.pixels}
            for name in STATISTICS
            if (found := getattr(self, name)) is not None
        }
        splits: dict[str, Any] = {part: fingerprint(found) for part, found in self.pictures.items()}
        extra = [picture for picture in self.pictures.get("train", []) if picture.origin]
        if extra:
            splits["train"]["extra_pairs"] = {"pictures": len(extra), **self._catalog.answered}
        return state | {"splits": splits}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the checkpoint's statistics where the images at hand have none of their own (protocol kair)."""
        for name in STATISTICS:
            found = state_dict.get(name)
            if found is not None and getattr(self, name) is None:
                setattr(
                    self, name, Statistics(torch.tensor(found["mean"]), torch.tensor(found["std"]), found["pixels"])
                )
