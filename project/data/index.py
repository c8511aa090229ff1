"""The indexing pass: every file is decoded once, and every bad one named, before anything trains."""

from __future__ import annotations

import csv
import io
import os
import stat
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image

from project.data.cache import Cache, key_of
from project.data.images import BadImage, Entry, ImageRecord, content_digest, decode, listed, run_parallel
from workbench.errors import UserError, did_you_mean

MAX_LISTED = 7  # bad files in an error of ten lines
MASK = "mask:"  # before the path of a file that is read as a mask


class FileCheck(NamedTuple):
    """What decoding a file found; `reason` says why it is bad."""

    bytes: int
    mtime_ns: int
    digest: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def index_images(
    entries: Sequence[Entry], *, cache: Cache, on_bad_image: str = "error", **options: Any
) -> list[ImageRecord]:
    """The good files, with the options of `validate_images`; bad ones are an error that names them, or a warning."""
    records, bad = validate_images(entries, cache=cache, **options)
    lines = listed(bad, MAX_LISTED)
    if len(bad) > MAX_LISTED:
        with cache.writing("bad_images.txt") as temporary:
            temporary.write_text("\n".join(bad) + "\n", encoding="utf-8")
        lines += f", see {cache.path('bad_images.txt')}"
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
    workers: int = 0,
    masks: bool = False,
    excluded: Collection[str] = (),
) -> tuple[list[ImageRecord], list[str]]:
    """Check every file: the good ones, in the order of the entries, and "NAME: reason" for each bad one.

    The shorter side must have `min_size` pixels, and 2; bad files of the names `excluded` are not reported.
    """
    checks = scan(entries, cache=cache, workers=workers, masks=masks)
    records, bad = [], []
    for entry in entries:
        record = _judge(entry, checks, max(2, min_size), masks)
        if isinstance(record, ImageRecord):
            records.append(record)
        elif entry.name not in excluded:
            bad.append(f"{entry.name}: {record}")
    return records, bad


def scan(entries: Sequence[Entry], *, cache: Cache, workers: int = 0, masks: bool = False) -> dict[str, FileCheck]:
    """By path (masks: `MASK` before it), what is known; files whose size or time is new are decoded, good or bad."""
    try:
        folder = os.path.commonpath([os.path.dirname(entry.path) for entry in entries])  # noqa: PTH120, a million paths
    except ValueError:  # several drives
        folder = ""
    name = f"index-{key_of(folder)}.json"
    decoder = f"2, Pillow {PIL.__version__}, at most {Image.MAX_IMAGE_PIXELS} pixels"
    kept = cache.read_json(name) or {}
    checks = {}
    if kept.get("decoder") == decoder:
        checks = {key: FileCheck(*values) for key, values in kept["files"].items()}
    keys = dict.fromkeys(key for entry in entries if not entry.problem for key in _keys(entry, masks))
    stale = [key for key in keys if not _is_fresh(key, checks.get(key))]
    if not stale:
        return checks
    with warnings.catch_warnings():  # Pillow's warning would only repeat, without a name, what `decode` checks
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            results = run_parallel(_check, stale, workers=workers, title="Checking images")
            checks.update(zip(stale, results, strict=False))
        finally:  # what was read before an interrupt is kept too
            cache.write_json(name, {"decoder": decoder, "files": checks})
    return checks


def read_exclusions(file: str, entries: Sequence[Entry]) -> set[str]:
    """Names of the entries that `data.exclude` lists; UserError for lines that match none, with the nearest names.

    Text with one name or path a line, # begins a comment; or a table with a column ``file``.
    """
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--data.exclude {file} cannot be read: {error}.") from error
    by_path = {entry.path: entry.name for entry in entries}
    names = {name: name for name in by_path.values()}
    excluded, unknown = set(), []
    for spellings in _listed(lines):
        found = [names.get(one) or by_path.get(str(Path(one).expanduser().absolute())) for one in spellings]
        if any(found):
            excluded |= set(found[:1] if found[0] else found[1:])
        elif spellings[-1]:
            unknown.append(spellings[-1] + did_you_mean(spellings[-1], names))
    if unknown:
        raise UserError(f"--data.exclude {file} names {len(unknown)} images that are not there:{listed(unknown)}")
    return excluded


def _listed(lines: list[str]) -> list[list[str]]:
    """A table's column of names; else each line, and without its comment: a name may hold a #."""
    for separator in ",;\t":  # spreadsheets of some countries write semicolons
        if "file" in next(csv.reader(lines[:1], delimiter=separator), []):
            return [[(row["file"] or "").strip()] for row in csv.DictReader(lines, delimiter=separator)]
    lines = [line.strip() for line in lines]
    return [[line, "" if line.startswith("#") else line.partition(" #")[0].strip()] for line in lines]


def _keys(entry: Entry, masks: bool) -> list[str]:
    target = entry.target_path
    return [entry.path] if target is None else [entry.path, MASK + target if masks else target]


def _is_fresh(key: str, check: FileCheck | None) -> bool:
    try:
        about = Path(key.removeprefix(MASK)).stat()
    except OSError:
        return False
    return check is not None and check[:2] == (about.st_size, about.st_mtime_ns)


def _check(key: str) -> FileCheck:
    path, mask = Path(key.removeprefix(MASK)), key.startswith(MASK)
    place = (-1, -1)
    try:
        about = path.stat()
        place = about.st_size, about.st_mtime_ns
        if not stat.S_ISREG(about.st_mode):  # opening a pipe would wait forever
            return FileCheck(*place, reason="is not a regular file")
        content = path.read_bytes()
    except OSError as error:
        return FileCheck(*place, reason=f"cannot be read ({error.strerror or error})")
    if not content:
        return FileCheck(*place, reason="is empty (0 bytes)")
    try:
        height, width = decode(io.BytesIO(content), channels=1 if mask else 3, mask=mask).shape[:2]
    except BadImage as bad:
        return FileCheck(*place, reason=str(bad))
    return FileCheck(*place, content_digest(content), width, height)


def _judge(entry: Entry, checks: dict[str, FileCheck], min_size: int, masks: bool) -> ImageRecord | str:
    """The image, or the reason why there is none."""
    if entry.problem:
        return entry.problem
    sides = [checks[key] for key in _keys(entry, masks)]
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
