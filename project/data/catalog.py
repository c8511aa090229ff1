"""What `prepare_data` finds out once and every process reads: the splits, the statistics, the decoded pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from project.data.cache import Cache, key_of
from project.data.exclusions import read_exclusions
from project.data.extra import extra_pictures, read_manifest
from project.data.images import ImageRecord
from project.data.index import index_pictures
from project.data.pixels import PixelFile, PixelStore, pixel_file
from project.data.sources import find_entries
from project.data.splits import PARTS, split_pictures
from project.data.statistics import Statistics, measure
from workbench.console import rank_zero_print
from workbench.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Everything that the catalog depends on: plain values, named as the configuration's `data` keys.

    Args:
        source: "demo", "drawings", "folder", a torchvision data set's name or a source's class path.
        root: A folder or several; wins over the source.
        target_root: The partners' folder of a folder pair.
        exclude: Text file or table that names images to leave out.
        extra_pairs: Folder of further training pairs.
        channels: 1 for gray, 3 for RGB.
        resize: Pixels of the shorter side after loading, or None.
        min_size: Pixels that the shorter side of a file must have.
        fractions: Shares of train, val and test.
        split_seed: Another seed, another split.
        on_bad_image: "error" or "skip".
        statistics_images: At most so many training images for mean and std; None takes all.
        decoded_cache_gb: Decoded pixels are kept on disk up to so many gigabytes.
        whole: A part ("test") that takes every image, sorted by name, whatever the split; no statistics then.
    """

    source: str = "demo"
    root: str | list[str] | None = None
    target_root: str | None = None
    exclude: str | None = None
    extra_pairs: str | None = None
    channels: int = 3
    resize: int | None = None
    min_size: int = 2
    fractions: tuple[float, float, float] = (0.7, 0.2, 0.1)
    split_seed: int = 42
    on_bad_image: str = "error"
    statistics_images: int | None = None
    decoded_cache_gb: float = 2.0
    whole: str | None = None

    def check(self) -> None:
        """Raise UserError, naming the key, for a value that cannot be."""
        shares = list(self.fractions)
        if len(shares) != 3 or not math.isclose(sum(shares), 1, abs_tol=1e-6) or min(shares) < 0 or shares[0] <= 0:
            raise UserError(
                f"--data.fractions {shares} must be three numbers that sum to 1, for train (above 0), val and test: "
                "[0.7, 0.2, 0.1]."
            )
        if self.channels not in (1, 3):
            raise UserError(f"--data.channels {self.channels} must be 1 (gray) or 3 (color).")
        if self.on_bad_image not in ("error", "skip"):
            raise UserError(f"--data.on_bad_image {self.on_bad_image} must be error or skip.")
        for key in ("resize", "statistics_images"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"--data.{key} {value} must be at least 1, or null.")

    @property
    def key(self) -> str:
        """Changes with every setting; folders count by their absolute paths."""
        return key_of({**asdict(self), "fractions": list(self.fractions), **self._places()})

    @property
    def split_key(self) -> str:
        """Names the deal: SHARES-PLACE, which change with fractions and seed, and with where the images are."""
        place = key_of(self.source if self.root is None else "folder", self._places())
        return f"{key_of(self.fractions, self.split_seed)}-{place}"

    def _places(self) -> dict:
        roots = [self.root] if isinstance(self.root, str) else list(self.root or [])
        return {
            "root": [str(Path(root).expanduser().absolute()) for root in roots],
            "target_root": self.target_root and str(Path(self.target_root).expanduser().absolute()),
        }


@dataclass
class Catalog:
    """The result.

    Attributes:
        splits: "train", "val" and "test": images sorted by name; extra pairs come last in "train".
        statistics: Of the training images without extra pairs; None where there are none (Settings.whole).
        target_statistics: Of their partners, where they have some; else the same object as `statistics`.
        answered: Of extra pairs, their ``folder`` and the ``members`` that have answered; empty where there are none.
    """

    splits: dict[str, list[ImageRecord]]
    statistics: Statistics | None
    target_statistics: Statistics | None
    _settings: Settings = field(repr=False)
    _file: PixelFile | None = field(repr=False)
    answered: dict[str, Any] = field(default_factory=dict)

    def store(self, part: str) -> PixelStore:
        """The pixels of one part's images, by their positions in `splits[part]`."""
        return self.store_of(self.splits[part])

    def store_of(self, pictures: Sequence[ImageRecord]) -> PixelStore:
        """The pixels of some of the images, by their positions."""
        settings = self._settings
        return PixelStore(pictures, channels=settings.channels, resize=settings.resize, file=self._file)


def build_catalog(settings: Settings, cache: Cache, *, workers: int = 0, progress: bool = True) -> Catalog:
    """List, check, split and measure the images, and keep the result for `read_catalog`. For one process.

    Every step is cached by what it depends on: the second time, files are only listed, their sizes and times compared.

    Args:
        settings: What to do.
        cache: Where results go.
        workers: Threads that decode.
        progress: Whether bars may be shown.

    Raises:
        UserError: For impossible settings, missing folders, bad or too few images, a cache that cannot be written.
    """
    settings.check()
    entries = find_entries(settings.source, settings.root, settings.target_root, cache, progress=progress)
    excluded = read_exclusions(settings.exclude, entries) if settings.exclude else set()
    pictures = index_pictures(
        entries,
        cache=cache,
        min_size=settings.min_size,
        on_bad_image=settings.on_bad_image,
        workers=workers,
        excluded=excluded,
        progress=progress,
    )
    if settings.whole:
        splits = {part: sorted(pictures, key=lambda p: p.name) if part == settings.whole else [] for part in PARTS}
    else:
        manifest = cache.path(f"split-{settings.split_key}.json")
        # With those that are left out, so that all others keep their places.
        splits = split_pictures(pictures, settings.fractions, settings.split_seed, manifest, excluded)
    if excluded:
        splits = _without(splits, excluded, settings)
    answered = {}
    if settings.extra_pairs and not settings.whole:
        further = read_manifest(settings.extra_pairs)
        extra = extra_pictures(
            further,
            entries,
            splits,
            cache=cache,
            min_size=settings.min_size,
            on_bad_image=settings.on_bad_image,
            workers=workers,
            progress=progress,
        )
        splits = {**splits, "train": splits["train"] + extra}
        answered = {"folder": str(further.folder), "members": further.members}
    everything = [picture for part in PARTS for picture in splits[part]]
    file = pixel_file(
        everything,
        channels=settings.channels,
        resize=settings.resize,
        cache=cache,
        limit_gb=settings.decoded_cache_gb,
        workers=workers,
        progress=progress,
    )
    catalog = Catalog(splits, None, None, settings, file, answered)
    if splits["train"]:
        _measure(catalog, cache, workers, progress)
    _save(catalog, cache)
    return catalog


def read_catalog(settings: Settings, cache: Cache) -> Catalog:
    """What `build_catalog` made of the same settings, in any process.

    Raises:
        UserError: Where there is nothing to read, or the file is damaged.
    """
    kept = cache.read_json(f"catalog-{settings.key}.json")
    if kept is None:
        raise UserError(
            f"The cache {cache.folder} holds no catalog of these images.\n"
            "prepare_data() makes it: call it before setup(), and give every machine a --data.cache_dir that holds it."
        )
    splits = {part: [ImageRecord(*row) for row in kept["splits"][part]] for part in PARTS}
    file = None
    if kept["in_file"]:
        everything = [picture for part in PARTS for picture in splits[part]]
        file = PixelFile(everything, settings.channels, settings.resize, cache)
    own = _statistics(kept["statistics"])
    other = _statistics(kept["target_statistics"]) if kept["target_statistics"] else own
    return Catalog(splits, own, other, settings, file, kept["answered"])


def _without(
    splits: dict[str, list[ImageRecord]], excluded: set[str], settings: Settings
) -> dict[str, list[ImageRecord]]:
    left = {part: [picture for picture in splits[part] if picture.name not in excluded] for part in PARTS}
    gone = {part: len(splits[part]) - len(left[part]) for part in PARTS}
    counts = ", ".join(f"{count} {part}" for part, count in gone.items() if count)
    rank_zero_print(f"Left out: {counts or 'none that can be used'} (--data.exclude {settings.exclude}).")
    emptied = [part for part in PARTS if splits[part] and not left[part]]
    if emptied:
        raise UserError(
            f"--data.exclude {settings.exclude} leaves no image for {' and '.join(emptied)}.\n"
            "Name fewer images there (of a worst.csv, keep only the rows that are to go), or give more (--data.root)."
        )
    return left


def _measure(catalog: Catalog, cache: Cache, workers: int, progress: bool) -> None:
    # Not of extra pairs: answers are no measurements, and the scale should be the same with them and without.
    pictures = [picture for picture in catalog.splits["train"] if not picture.origin]
    store = catalog.store_of(pictures)
    limit = catalog._settings.statistics_images
    own = measure(store, pictures, cache=cache, limit=limit, workers=workers, progress=progress)
    catalog.statistics = catalog.target_statistics = own
    if store.has_targets:
        catalog.target_statistics = measure(
            store, pictures, cache=cache, side="target", limit=limit, workers=workers, progress=progress
        )


def _save(catalog: Catalog, cache: Cache) -> None:
    own, other = catalog.statistics, catalog.target_statistics
    value = {
        "splits": {part: [list(vars(picture).values()) for picture in catalog.splits[part]] for part in PARTS},
        "answered": catalog.answered,
        "in_file": catalog._file is not None,
        "statistics": _plain(own),
        "target_statistics": None if other is own else _plain(other),
    }
    cache.write_json(f"catalog-{catalog._settings.key}.json", value)


def _plain(statistics: Statistics | None) -> dict | None:
    if statistics is None:
        return None
    return {"mean": statistics.mean.tolist(), "std": statistics.std.tolist(), "pixels": statistics.pixels}


def _statistics(plain: dict | None) -> Statistics | None:
    return plain and Statistics(torch.tensor(plain["mean"]), torch.tensor(plain["std"]), plain["pixels"])
