"""Which images train, which validate and which test: exact, reproducible, and never the same image twice."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from project.data.cache import Cache
from project.data.images import ImageRecord
from workbench.console import rank_zero_print
from workbench.errors import UserError

PARTS = ("train", "val", "test")


def split_pictures(
    pictures: Sequence[ImageRecord],
    fractions: Sequence[float] = (0.7, 0.2, 0.1),
    seed: int = 42,
    manifest: Path | None = None,
    excluded: Collection[str] = (),
) -> dict[str, list[ImageRecord]]:
    """Deal the images into training, validation and test.

    The order of dealing is that of a hash of the seed and each file's content, so that neither the folder's place, nor
    the order of its listing, nor the machine matters. Files of the same bytes are one group and stay together. Images
    that came with a part of their own keep it; a part that is missing then is cut from the training images.

    Args:
        images: What the index found good.
        fractions: Shares of train, val and test; they sum to 1. A share of 0 leaves that part empty.
        seed: Another seed, another deal.
        manifest: JSON file of an earlier deal, brought up to date here. Images that it knows, by content or else by
            name, keep their part; new ones fill the parts up towards the fractions. Files beside it that share its name
            up to the last "-" are deals of the same fractions and seed: see `_Manifest`.
        excluded: Names of images that are dealt, and will not be used: copies of others among them harm nobody.

    Returns:
        "train", "val" and "test", each sorted by name; together every image exactly once.

    Raises:
        UserError: When there are too few different images for one in each part.
    """
    ready = {picture.part for picture in pictures} & set(PARTS)
    if ready:
        splits = _respect(pictures, ready, fractions, seed, manifest)
        _warn_of_copies({part: [one for one in splits[part] if one.name not in excluded] for part in PARTS})
    else:
        splits = _deal(pictures, dict(zip(PARTS, fractions, strict=True)), seed, manifest)
    return {part: sorted(splits[part], key=lambda picture: (picture.name, picture.path)) for part in PARTS}


def fingerprint(pictures: Sequence[ImageRecord]) -> dict[str, int | str]:
    """How many images there are, and a hash of their contents, whatever their names and places."""
    digests = "\n".join(sorted(picture.digest for picture in pictures))
    return {
        "pictures": len(pictures),
        "fingerprint": hashlib.blake2b(digests.encode(), digest_size=16).hexdigest(),
    }


def exact_counts(total: int, shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `total`, close to its shares (largest remainders), at least 1 for each above 0.

    Args:
        total: What to share out; at least the number of shares above 0.
        shares: Non-negative numbers; only their ratios count.
    """
    whole = sum(shares.values())
    quotas = {part: total * share / whole for part, share in shares.items()}
    counts = {part: int(quota + 1e-9) for part, quota in quotas.items()}  # 0.7 * 10 is a little less than 7
    by_remainder = sorted(shares, key=lambda part: round(counts[part] - quotas[part], 9))  # ties go to training first
    for part in by_remainder[: total - sum(counts.values())]:
        counts[part] += 1
    for part, share in shares.items():
        if share > 0 and counts[part] == 0:
            counts[max(counts, key=counts.__getitem__)] -= 1
            counts[part] = 1
    return counts


def _respect(
    pictures: Sequence[ImageRecord], ready: set[str], fractions: Sequence[float], seed: int, manifest: Path | None
) -> dict[str, list[ImageRecord]]:
    """Keep ready-made parts; cut those that are missing, and have a share, from the training images."""
    splits: dict[str, list[ImageRecord]] = {part: [] for part in PARTS}
    for picture in pictures:
        splits[picture.part if picture.part in PARTS else "train"].append(picture)
    if not splits["train"]:
        raise UserError(
            f"No image is left to train on: all {len(pictures)} that can be used lie in the ready-made "
            f"{' and '.join(part for part in PARTS if part in ready)}.\nMend those in train, or give others."
        )
    if loose := sum(picture.part not in PARTS for picture in pictures):
        rank_zero_print(f"{loose} images come from folders without ready-made parts: they are for training.")
    shares = dict(zip(PARTS, fractions, strict=True))
    cut = [part for part in PARTS if part not in ready and shares[part] > 0]
    if cut:
        kept = {part: share for part, share in shares.items() if part == "train" or part in cut}
        splits |= _deal(splits["train"], {**dict.fromkeys(PARTS, 0.0), **kept}, seed, manifest, only=kept)
        counts = " and ".join(f"{len(splits[part])} for {part}" for part in cut)
        rank_zero_print(f"The ready-made parts lack {' and '.join(cut)}: {counts} were cut from its train images.")
    return splits


def _deal(
    pictures: Sequence[ImageRecord],
    shares: dict[str, float],
    seed: int,
    manifest: Path | None,
    only: Sequence[str] | dict[str, float] = PARTS,
) -> dict[str, list[ImageRecord]]:
    groups = defaultdict(list)
    for picture in pictures:
        groups[picture.digest].append(picture)
    wanted = [part for part in only if shares[part] > 0]
    if len(groups) < len(wanted):
        same = "" if len(groups) == len(pictures) else f", {len(groups)} of them different"
        raise UserError(
            f"{len(pictures)} images{same} are too few: {len(wanted)} are needed, one each for {', '.join(wanted)}.\n"
            "Give more images (--data.root FOLDER)."
        )
    known = _Manifest(manifest, groups.keys())
    splits: dict[str, list[ImageRecord]] = {part: [] for part in only}
    new = []
    for digest, group in groups.items():
        part = known.part_of(group)
        if part in splits:
            splits[part] += group
        else:
            # Groups of several first: the single ones can then fill every part exactly.
            order = hashlib.blake2b(f"{seed}:{digest}".encode(), digest_size=16).hexdigest()
            new.append((-len(group), order, group))
    counts = exact_counts(len(pictures), shares)
    new.sort(key=lambda item: item[:2])
    for place, (_, _, group) in enumerate(new):
        empty = [part for part in wanted if not splits[part]]
        choice = empty if len(new) - place <= len(empty) else wanted
        splits[max(choice, key=lambda part: counts[part] - len(splits[part]))] += group
    empty = [part for part in wanted if not splits[part]]
    if empty:
        raise UserError(
            f"No image is left for {' and '.join(empty)}: the earlier split {manifest} holds all others in place.\n"
            "Give more images, or remove that file to split anew."
        )
    known.save(splits)
    return splits


class _Manifest:
    """The saved deal: part by content and by name. A folder without one has that of a smaller folder now within it."""

    def __init__(self, path: Path | None, digests: AbstractSet[str]) -> None:
        self.path = path
        self.cache = Cache(path.parent) if path else None
        self.rows = self._read(path) if path else {}  # name -> [digest, part]
        self.by_digest = dict(self.rows.values())
        if path and not path.exists():
            self.by_digest = self._moved(digests)

    def _read(self, path: Path) -> dict[str, list[str]]:
        return (self.cache.read_json(path.name) or {}).get("pictures", {})

    def _moved(self, digests: AbstractSet[str]) -> dict[str, str]:
        """Of the deals of the same shares and seed, the largest whose images are all here: maybe the folder moved."""
        family = self.path.name.rpartition("-")[0]
        deals = [dict(self._read(other).values()) for other in sorted(self.path.parent.glob(f"{family}-*.json"))]
        return max((deal for deal in deals if deal.keys() <= digests), key=len, default={})

    def part_of(self, group: Sequence[ImageRecord]) -> str | None:
        """The part of a group of identical images: by content, else by the first name that is known."""
        if group[0].digest in self.by_digest:
            return self.by_digest[group[0].digest]
        names = sorted(picture.name for picture in group)
        return next((self.rows[name][1] for name in names if name in self.rows), None)

    def save(self, splits: dict[str, list[ImageRecord]]) -> None:
        """Add and update; images that are gone for now are remembered."""
        if not self.path:
            return
        rows = {picture.name: [picture.digest, part] for part, group in splits.items() for picture in group}
        merged = {**self.rows, **rows}
        if merged != self.rows:
            self.cache.write_json(self.path.name, {"pictures": dict(sorted(merged.items()))})


def _warn_of_copies(splits: dict[str, list[ImageRecord]]) -> None:
    places = defaultdict(list)
    for part, pictures in splits.items():
        for picture in pictures:
            places[picture.digest].append((part, picture.name))
    copies = [where for where in places.values() if len({part for part, _ in where}) > 1]
    if copies:
        shown = "".join(f"\n  {' = '.join(name for _, name in where[:3])}" for where in copies[:5])
        more = f"\n  ... and {len(copies) - 5} more" if len(copies) > 5 else ""
        rank_zero_warn(f"{len(copies)} images lie byte for byte in several of the ready-made parts:{shown}{more}")
