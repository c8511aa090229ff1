"""Which images train, validate and test: exact, reproducible, and never the same content in two splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from project.data.cache import Cache
from project.data.images import ImageRecord, content_digest
from workbench.console import rank_zero_print
from workbench.errors import UserError

PARTS = ("train", "val", "test")
Splits = dict[str, list[ImageRecord]]


def split_images(
    records: Sequence[ImageRecord],
    fractions: Sequence[float] = (0.7, 0.2, 0.1),
    seed: int = 42,
    file: Path | None = None,
) -> Splits:
    """Assign each image to train, val or test, sorted by name; UserError for too few different images.

    The order follows from a hash of the seed and each file's content: the folder's place, the order of its listing and
    the machine do not matter. Identical files stay together. Images of a source with splits of its own keep theirs; a
    split that is missing then is cut from the training images.

    Args:
        fractions: shares of train, val and test; 0 leaves a split empty.
        file: JSON file of an earlier split, updated here. Images that it knows, by content or else by name, keep their
            split; new ones fill up towards the fractions.
    """
    shares = dict(zip(PARTS, fractions, strict=True))
    if any(record.part in PARTS for record in records):
        splits = _keep_ready(records, shares, seed, file)
    else:
        splits = _assign(records, shares, seed, file)
    return {part: sorted(splits[part], key=lambda record: (record.name, record.path)) for part in PARTS}


def fingerprint(records: Sequence[ImageRecord]) -> dict[str, int | str]:
    """The number of images, and a hash of their contents whatever their names and places."""
    digests = "\n".join(sorted(record.digest for record in records))
    return {"images": len(records), "fingerprint": content_digest(digests.encode())}


def _exact_counts(total: int, shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `total`, by largest remainders, at least 1 for each share above 0."""
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


def _keep_ready(records: Sequence[ImageRecord], shares: dict[str, float], seed: int, file: Path | None) -> Splits:
    splits: Splits = {part: [] for part in PARTS}
    for record in records:  # those of further folders without splits of their own are for training
        splits[record.part if record.part in PARTS else "train"].append(record)
    if not splits["train"]:
        ready = " and ".join(part for part in PARTS if splits[part])
        raise UserError(f"No image is left to train on: all {len(records)} usable ones lie in the ready-made {ready}.")
    cut = [part for part in PARTS if not splits[part] and shares[part] > 0]
    if cut:
        splits |= _assign(splits["train"], {part: shares[part] for part in ("train", *cut)}, seed, file)
        counts = " and ".join(f"{len(splits[part])} for {part}" for part in cut)
        rank_zero_print(f"The ready-made splits lack {' and '.join(cut)}: {counts} were cut from its train images.")
    return splits


def _assign(records: Sequence[ImageRecord], shares: dict[str, float], seed: int, file: Path | None) -> Splits:
    groups = defaultdict(list)
    for record in records:
        groups[record.digest].append(record)
    wanted = [part for part in shares if shares[part] > 0]
    if len(groups) < len(wanted):
        raise UserError(f"{len(groups)} different images are too few: {', '.join(wanted)} need one each (--data.root).")
    rows, by_digest = _earlier_split(file, groups.keys())
    splits: Splits = {part: [] for part in shares}
    new = []
    for digest, group in groups.items():
        names = sorted(record.name for record in group)
        part = by_digest.get(digest) or next((rows[name][1] for name in names if name in rows), None)
        if part in splits:
            splits[part] += group
        else:  # larger groups first: single images can then fill every split exactly
            new.append((-len(group), content_digest(f"{seed}:{digest}".encode()), group))
    counts = _exact_counts(len(records), shares)
    new.sort(key=lambda item: item[:2])
    for place, (_, _, group) in enumerate(new):
        empty = [part for part in wanted if not splits[part]]
        choice = empty if len(new) - place <= len(empty) else wanted
        splits[max(choice, key=lambda part: counts[part] - len(splits[part]))] += group
    if empty := [part for part in wanted if not splits[part]]:
        parts = " and ".join(empty)
        raise UserError(f"No image is left for {parts}: give more, or remove {file}, which keeps all others in place.")
    now = {record.name: [record.digest, part] for part, group in splits.items() for record in group}
    if file is not None and rows | now != rows:  # images that are gone for now are remembered
        Cache(file.parent).write_json(file.name, {"images": dict(sorted((rows | now).items()))})
    return splits


def _earlier_split(file: Path | None, digests: AbstractSet[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """name -> [digest, part] of the file, and digest -> part.

    Without a file the folder may have been moved: then it is the largest split of the same fractions and seed (files
    of the same name up to the last "-") whose images are all here.
    """
    if file is None:
        return {}, {}
    cache = Cache(file.parent)
    if kept := cache.read_json(file.name):
        return kept["images"], dict(kept["images"].values())
    others = sorted(file.parent.glob(f"{file.name.rpartition('-')[0]}-*.json"))
    earlier = [
        dict((cache.read_json(path.name) or {"images": {}})["images"].values()) for path in others if path != file
    ]
    return {}, max((one for one in earlier if one.keys() <= digests), key=len, default={})
