"""What `prepare_data` finds out once and every process reads: the splits, the statistics, the decoded pixels."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import Any

from project.data.cache import Cache
from project.data.extra import extra_records, read_manifest
from project.data.images import ImageRecord
from project.data.index import index_images, read_exclusions
from project.data.pixels import PixelFile, PixelStore, pixel_file, write_pixels
from project.data.settings import Settings
from project.data.sources import find_entries
from project.data.splits import PARTS, Splits, split_images
from project.data.statistics import Statistics, measure
from workbench.console import rank_zero_print
from workbench.errors import UserError


@dataclass
class Catalog:
    """The images of one configuration."""

    settings: Settings
    splits: Splits  # of "train", "val" and "test": images sorted by name; extra pairs come last in "train"
    statistics: Statistics | None = None  # of the training images without extra pairs
    target_statistics: Statistics | None = None  # of their targets; the same object without any, and for masks
    extra: dict[str, Any] = field(default_factory=dict)  # of extra pairs: "folder", and the ensemble's "members"
    file: PixelFile | None = None

    def store(self, part: str) -> PixelStore:
        """The pixels of one split's images, by their positions in `splits[part]`."""
        return PixelStore(self.splits[part], file=self.file, **self.settings.pixels)

    def plan_pixels(self, cache: Cache) -> tuple[PixelFile, list[ImageRecord]]:
        """The file of decoded pixels, and the images of all splits, which it holds."""
        everything = [record for part in PARTS for record in self.splits[part]]
        return pixel_file(everything, cache, **self.settings.pixels), everything


def build_catalog(settings: Settings, cache: Cache, *, workers: int = 0) -> None:
    """List, check, split and measure the images, and keep the result for `read_catalog`. For one process.

    Every step is cached by what it depends on: the second time, files are only listed, their sizes and times compared.
    """
    entries = find_entries(settings.source, settings.root, settings.target_root, cache)
    excluded = read_exclusions(settings.exclude, entries) if settings.exclude else set()
    options: dict[str, Any] = {"cache": cache, "workers": workers}
    checks = {**options, "min_size": settings.min_size, "on_bad_image": settings.on_bad_image}
    records = index_images(entries, masks=settings.target == "mask", excluded=excluded, **checks)
    if settings.only_split:
        by_name = sorted(records, key=lambda record: record.name)
        splits = {part: by_name if part == settings.only_split else [] for part in PARTS}
    else:  # with those that are left out, so that all others keep their places
        splits = split_images(records, settings.fractions, file=cache.path(settings.split_file), excluded=excluded)
    if excluded:
        splits = _without(splits, excluded, settings.exclude)
    catalog = Catalog(settings, splits)
    if settings.extra_pairs and not settings.only_split:
        manifest = read_manifest(settings.extra_pairs)
        catalog.extra = {"folder": manifest["folder"], "members": manifest["members"]}
        splits["train"] += extra_records(manifest, entries, splits["val"] + splits["test"], **checks)
    file, everything = catalog.plan_pixels(cache)
    if write_pixels(file, everything, limit_gb=settings.decoded_cache_gb, **options, **settings.pixels):
        catalog.file = file
    # Not of extra pairs: predictions are no measurements, and the scale should be the same with them and without.
    own = [record for record in splits["train"] if not record.origin]
    statistics = []
    if own:
        store = PixelStore(own, file=catalog.file, **settings.pixels)
        sides = ("input", "target") if store.has_targets else ("input",)
        statistics = [measure(store, own, side=side, **options).to_plain() for side in sides]
    plain = {part: [astuple(record) for record in splits[part]] for part in PARTS}
    mapped = catalog.file is not None
    cache.write_json(
        settings.file, {"splits": plain, "statistics": statistics, "extra": catalog.extra, "mapped": mapped}
    )


def read_catalog(settings: Settings, cache: Cache) -> Catalog:
    """What `build_catalog` found for the same settings, in any process; UserError where it did not run."""
    kept = cache.read_json(settings.file)
    if kept is None:
        raise UserError(
            f"The cache {cache.folder} holds no catalog of these images.\n"
            "prepare_data() makes it: call it before setup(), and give every machine a --data.cache_dir that holds it."
        )
    splits = {part: [ImageRecord(*row) for row in kept["splits"][part]] for part in PARTS}
    statistics = [Statistics.from_plain(plain) for plain in kept["statistics"]] or [None]
    catalog = Catalog(settings, splits, statistics[0], statistics[-1], kept["extra"])
    if kept["mapped"]:
        catalog.file, _ = catalog.plan_pixels(cache)
    return catalog


def _without(splits: Splits, excluded: set[str], file: str) -> Splits:
    left = {part: [record for record in splits[part] if record.name not in excluded] for part in PARTS}
    gone = {part: len(splits[part]) - len(left[part]) for part in PARTS}
    counts = ", ".join(f"{count} {part}" for part, count in gone.items() if count)
    rank_zero_print(f"Left out: {counts or 'none that can be used'} (--data.exclude {file}).")
    if emptied := [part for part in PARTS if splits[part] and not left[part]]:
        raise UserError(
            f"--data.exclude {file} leaves no image for {' and '.join(emptied)}.\n"
            "Name fewer images there (in a worst.csv, keep only the rows to leave out), or give more (--data.root)."
        )
    return left
