"""The images of one configuration: which are in which split, their statistics, their decoded pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from project.data.cache import Cache, key_of
from project.data.extra import extra_records, read_manifest
from project.data.images import Entry
from project.data.index import index_images, read_exclusions
from project.data.pairs import PairMaker
from project.data.pixels import PixelFile, PixelStore, decode_once
from project.data.sources import find_entries
from project.data.splits import PARTS, Splits, split_images
from project.data.statistics import Statistics, measure
from workbench.console import rank_zero_print
from workbench.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Everything that the catalog depends on: keys of `ImageDataModule`, and two that follow from them."""

    source: str
    root: str | list[str] | None
    target_root: str | None
    target: str
    exclude: str | None
    extra_pairs: str | None
    channels: int
    resize: int | None
    fractions: tuple[float, float, float]
    on_bad_image: str
    decoded_cache_gb: float
    min_size: int  # pixels that the shorter side of a file must have
    only_split: str | None  # the split that takes every image, sorted by name; no statistics then

    def find(self, cache: Cache) -> tuple[list[Entry], set[str]]:
        """The images that the source lists, and the names of those to leave out."""
        entries = find_entries(self.source, self.root, self.target_root, cache)
        return entries, read_exclusions(self.exclude, entries) if self.exclude else set()

    @property
    def pixels(self) -> dict[str, Any]:
        """How pixels are read: options of `PixelStore`."""
        return {"channels": self.channels, "resize": self.resize, "masks": self.target == "mask"}

    @property
    def split_file(self) -> str:
        """split-SHARES-PLACE.json: changes with the fractions, and with where the images are."""
        roots = [self.root] if isinstance(self.root, str) else self.root or []
        root, target_root = [_absolute(one) for one in roots], self.target_root and _absolute(self.target_root)
        place = key_of("folder" if root else self.source, {"root": root, "target_root": target_root})
        return f"split-{key_of(self.fractions, 42)}-{place}.json"


class Catalog(NamedTuple):
    """What `build_catalog` finds."""

    splits: Splits  # of "train", "val" and "test": images sorted by name; extra pairs come last in "train"
    statistics: Statistics | None  # of the training images without extra pairs
    target_statistics: Statistics | None  # of their targets; the same object without any, and for masks
    extra: dict[str, Any]  # of extra pairs: how many "images", the "folder", and the ensemble's "members"
    file: PixelFile | None


def build_catalog(settings: Settings, pairs: PairMaker, cache: Cache) -> Catalog:
    """List, check, split, measure and decode the images, each cached by what it depends on: the second time, and in
    every further process, files are only listed, their sizes and times compared."""
    entries, excluded = settings.find(cache)
    checks: dict[str, Any] = {"cache": cache, "min_size": settings.min_size, "on_bad_image": settings.on_bad_image}
    records = index_images(entries, masks=settings.target == "mask", excluded=excluded, **checks)
    if settings.only_split:
        by_name = sorted(records, key=lambda record: record.name)
        splits = {part: by_name if part == settings.only_split else [] for part in PARTS}
    else:  # with those that are left out, so that all others keep their places
        splits = split_images(records, settings.fractions, file=cache.path(settings.split_file))
    if excluded:
        splits = _without(splits, excluded, settings.exclude)
    own, extra = splits["train"], {}
    if settings.extra_pairs and not settings.only_split:
        manifest = read_manifest(settings.extra_pairs, pairs, settings.channels)
        held_out = splits["val"] + splits["test"]
        more = extra_records(settings.extra_pairs, manifest, entries, held_out, **checks)
        splits["train"] = own + more
        extra = {"images": len(more), "folder": _absolute(settings.extra_pairs), "members": manifest["members"]}
    everything = [record for part in PARTS for record in splits[part]]
    file = decode_once(everything, cache, settings.decoded_cache_gb, **settings.pixels)
    statistics = targets = None
    if own:  # extra pairs are predictions, no measurements: the scale is the same with them and without
        store = PixelStore(own, file=file, **settings.pixels)
        statistics = measure(store, cache)
        targets = measure(store, cache, side="target") if store.has_targets else statistics
    return Catalog(splits, statistics, targets, extra, file)


def _without(splits: Splits, excluded: set[str], file: str) -> Splits:
    left = {part: [record for record in splits[part] if record.name not in excluded] for part in PARTS}
    gone = {part: len(splits[part]) - len(left[part]) for part in PARTS}
    counts = ", ".join(f"{count} {part}" for part, count in gone.items() if count)
    rank_zero_print(f"Left out: {counts or 'none that can be used'} (--data.exclude {file}).")
    if emptied := [part for part in PARTS if splits[part] and not left[part]]:
        raise UserError(f"--data.exclude {file} leaves no image for {' and '.join(emptied)}: name fewer images there.")
    return left


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
