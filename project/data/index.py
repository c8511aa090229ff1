"""The indexing pass: every file is decoded once, and every bad one named, before anything trains."""

from __future__ import annotations

import csv
import io
import os
import re
import warnings
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import PIL
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image

from project.data.cache import Cache, key_of
from project.data.images import BadImage, Entry, ImageRecord, content_digest, decode, listed, run_parallel
from workbench.errors import UserError, did_you_mean


class FileCheck(NamedTuple):
    """What decoding a file found; `reason` says why it is bad."""

    bytes: int
    mtime_ns: int
    digest: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def index_images(entries: list[Entry], *, cache: Cache, on_bad_image: str = "error", **options) -> list[ImageRecord]:
    """The good files, with the options of `validate_images`; bad ones are an error that names them, or a warning."""
    records, bad = validate_images(entries, cache=cache, **options)
    lines = listed(bad, most=7)
    if bad and on_bad_image == "error":
        raise UserError(
            f"{len(bad)} of {len(entries)} images cannot be used:{lines}\n"
            "Fix or remove them, or leave them out: --data.on_bad_image skip. (A smaller crop accepts smaller images.)"
        )
    if bad:
        rank_zero_warn(f"Left out {len(bad)} of {len(entries)} images (--data.on_bad_image skip):{lines}")
    if not records:
        raise UserError(f"None of the {len(entries)} images can be used. Point --data.root at a folder of good images.")
    return records


def validate_images(
    entries: Sequence[Entry],
    *,
    cache: Cache,
    min_size: int = 2,
    masks: bool = False,
    excluded: Collection[str] = (),
) -> tuple[list[ImageRecord], list[str]]:
    """Check every file: the good ones, in the order of the entries, and "NAME: reason" for each bad one.

    The shorter side must have `min_size` pixels, and 2; bad files of the names `excluded` are not reported.
    """
    checks = scan(entries, cache, masks)
    records, bad = [], []
    for entry in entries:
        record = _judge(entry, checks, max(2, min_size))
        if isinstance(record, ImageRecord):
            records.append(record)
        elif entry.name not in excluded:
            bad.append(f"{entry.name}: {record}")
    return records, bad


def scan(entries: Sequence[Entry], cache: Cache, masks: bool = False) -> dict[str, FileCheck]:
    """By path, what is known; files whose size or time is new are decoded, good or bad, all targets as `masks`."""
    folder = ""
    with suppress(ValueError):  # several drives
        folder = os.path.commonpath([os.path.dirname(entry.path) for entry in entries])  # noqa: PTH120, a million paths
    name = f"index-{key_of(folder, masks)}.json"
    decoder = f"3, Pillow {PIL.__version__}, at most {Image.MAX_IMAGE_PIXELS} pixels"
    kept = cache.read_json(name) or {}
    checks = {}
    if kept.get("decoder") == decoder:
        checks = {path: FileCheck(*values) for path, values in kept["files"].items()}
    paths = dict.fromkeys(path for entry in entries if not entry.problem for path in _paths(entry))
    stale = [path for path in paths if path not in checks or _version(path) != checks[path][:2]]
    if not stale:
        return checks
    as_masks = {entry.target_path for entry in entries} if masks else set()
    with warnings.catch_warnings():  # Pillow's warning would only repeat, without a name, what `decode` checks
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            check = partial(_check, masks=as_masks)
            checks.update(zip(stale, run_parallel(check, stale, "Checking images"), strict=False))
        finally:  # what was read before an interrupt is kept too
            cache.write_json(name, {"decoder": decoder, "files": checks})
    return checks


def read_exclusions(file: str, entries: Sequence[Entry]) -> set[str]:
    """Names of the entries that `data.exclude` lists; UserError for lines that match none, with the nearest names.

    Text with one name a line, where "# " begins a comment; or a table with a column ``file``.
    """
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--data.exclude {file} cannot be read: {error}.") from error
    if "file" in next(csv.reader(lines[:1]), []):
        listing = {(row["file"] or "").strip() for row in csv.DictReader(lines)}
    else:
        listing = {re.sub(r"(^|\s)#(\s.*)?$", "", line).strip() for line in lines}  # a name may hold a #
    names = {entry.name for entry in entries}
    if unknown := sorted(listing - names - {""}):
        nearest = [name + did_you_mean(name, names) for name in unknown]
        raise UserError(f"--data.exclude {file} names {len(unknown)} images that are not there:{listed(nearest)}")
    return listing - {""}


def _paths(entry: Entry) -> list[str]:
    return [path for path in (entry.path, entry.target_path) if path is not None]


def _version(path: str) -> tuple[int, int]:
    """Bytes and time of a file, -1 if it is gone."""
    with suppress(OSError):
        about = Path(path).stat()
        return about.st_size, about.st_mtime_ns
    return -1, -1


def _check(path: str, masks: Collection[str] = ()) -> FileCheck:
    version, mask = _version(path), path in masks
    try:
        content = Path(path).read_bytes()
        if not content:
            raise BadImage("is empty (0 bytes)")
        height, width = decode(io.BytesIO(content), channels=1 if mask else 3, mask=mask).shape[:2]
    except OSError as error:
        return FileCheck(*version, reason=f"cannot be read ({error.strerror})")
    except BadImage as bad:
        return FileCheck(*version, reason=str(bad))
    return FileCheck(*version, content_digest(content), width, height)


def _judge(entry: Entry, checks: dict[str, FileCheck], min_size: int) -> ImageRecord | str:
    """The image, or the reason why there is none."""
    if entry.problem:
        return entry.problem
    sides = [checks[path] for path in _paths(entry)]
    for side, prefix in zip(sides, ("", f"its target {entry.target_path} "), strict=False):
        if side.reason:
            return prefix + side.reason
        if min(side.width, side.height) < min_size:
            return f"{prefix}is too small ({side.width}x{side.height} pixels, needed are {min_size}x{min_size})"
    own, other = sides[0], sides[-1]
    if (own.width, own.height) != (other.width, other.height):
        return f"is {own.width}x{own.height} pixels, its target {entry.target_path} {other.width}x{other.height}"
    digest = own.digest if len(sides) == 1 else content_digest((own.digest + other.digest).encode())
    return ImageRecord(**vars(entry), width=own.width, height=own.height, digest=digest)
