"""The indexing pass: every file decoded once, every bad one named, before anything is trained on."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import PIL
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image

from project.data.cache import Cache, key_of
from project.data.images import BadImage, Entry, ImageRecord, content_digest, decode
from project.data.parallel import run_parallel
from workbench.errors import UserError

SHOWN = 8  # bad files that an error names; with its first and last line, ten lines


class Verdict(NamedTuple):
    """What decoding a file told; kept in the cache under the file's path.

    Attributes:
        bytes: Size of the file.
        mtime_ns: Time of its last change.
        digest: Hexadecimal BLAKE2b of its bytes; empty where it could not be read.
        width: Columns, upright; 0 for a bad file.
        height: Rows, upright; 0 for a bad file.
        reason: Why it is bad; empty for a good one.
    """

    bytes: int
    mtime_ns: int
    digest: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def index_pictures(
    entries: Sequence[Entry],
    *,
    cache: Cache,
    min_size: int = 2,
    on_bad_image: str = "error",
    workers: int = 0,
    excluded: Collection[str] = (),
    progress: bool = True,
) -> list[ImageRecord]:
    """Decode every file whole and tell the good from the bad, all at once.

    A file whose path, size and time of change are known is not decoded again, whether it was good or bad.

    Args:
        entries: What the source found.
        cache: Where the verdicts are kept.
        min_size: Pixels that the shorter side must have: the crop. Never less than 2: a row of pixels is no image.
        on_bad_image: "error" refuses to go on with bad files; "skip" warns and leaves them out.
        workers: Threads that decode.
        excluded: Names of entries that the user left out: where they are bad, nobody minds.
        progress: Whether a bar may be shown.

    Returns:
        The good ones, in the order of the entries.

    Raises:
        UserError: Naming every bad file and its reason, or when no good one is left.
    """
    pictures, bad = validate_images(
        entries, cache=cache, min_size=min_size, workers=workers, excluded=excluded, progress=progress
    )
    if bad:
        _report(bad, len(entries), on_bad_image, cache)
    if not pictures:
        raise UserError(
            f"None of the {len(entries)} images can be used, so there is nothing to train on.\n"
            "Point --data.root at a folder that holds good images."
        )
    return pictures


def validate_images(
    entries: Sequence[Entry],
    *,
    cache: Cache,
    min_size: int = 2,
    workers: int = 0,
    excluded: Collection[str] = (),
    progress: bool = True,
) -> tuple[list[ImageRecord], list[str]]:
    """Decode every file whole, as `index_pictures` does, and leave it to the caller what becomes of the bad ones.

    Args:
        entries: What the source found.
        cache: Where the verdicts are kept.
        min_size: Pixels that the shorter side must have.
        workers: Threads that decode.
        excluded: Names of entries that the user left out.
        progress: Whether a bar may be shown.

    Returns:
        The good ones, in the order of the entries; and for each bad one "NAME: reason".
    """
    verdicts = _Verdicts(cache, _cache_name(entries))
    verdicts.examine(_paths(entries), workers, progress)

    excluded = frozenset(excluded)
    pictures, bad = [], []
    for entry in entries:
        picture = _judge(entry, verdicts, max(2, min_size))
        if isinstance(picture, ImageRecord):
            pictures.append(picture)
        elif entry.name not in excluded:
            bad.append(f"{entry.name}: {picture}")
    return pictures, bad


def file_digests(entries: Sequence[Entry], *, cache: Cache) -> dict[str, str]:
    """The digest of every file's bytes, inputs and partners, by its path; `validate_images` has looked at them."""
    verdicts = _Verdicts(cache, _cache_name(entries))
    return {path: verdicts[path].digest for path in _paths(entries)}


def _cache_name(entries: Sequence[Entry]) -> str:
    return f"index-{key_of(_common_folder(entries))}.json"


def _paths(entries: Sequence[Entry]) -> list[str]:
    return [path for entry in entries if not entry.problem for path in (entry.path, entry.target_path) if path]


def _common_folder(entries: Sequence[Entry]) -> str:
    try:
        return os.path.commonpath([os.path.dirname(entry.path) for entry in entries])  # noqa: PTH120, a million paths
    except ValueError:  # several drives
        return ""


class _Verdicts:
    """The verdicts on files, kept in the cache."""

    def __init__(self, cache: Cache, name: str) -> None:
        self.cache = cache
        self.name = name
        self.decoder = f"1, Pillow {PIL.__version__}, at most {Image.MAX_IMAGE_PIXELS} pixels"
        kept = cache.read_json(name) or {}
        self.known = {}
        if kept.get("decoder") == self.decoder:
            self.known = {path: Verdict(*values) for path, values in kept["files"].items()}

    def __getitem__(self, path: str) -> Verdict:
        return self.known[path]

    def examine(self, paths: Iterable[str], workers: int, progress: bool) -> None:
        """Make sure of a fresh verdict on each path; a path seen twice is read once."""
        stale = [path for path in dict.fromkeys(paths) if not self._is_fresh(path)]
        if not stale:
            return
        # Checked before decoding in `decode`; Pillow's own warning on top would only repeat it, unnamed.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            results = run_parallel(_examine, stale, workers=workers, what="Checking images", progress=progress)
            try:
                self.known.update(zip(stale, results, strict=False))
            finally:  # what an interrupt leaves is kept too
                files = {path: list(verdict) for path, verdict in self.known.items()}
                self.cache.write_json(self.name, {"decoder": self.decoder, "files": files})

    def _is_fresh(self, path: str) -> bool:
        verdict = self.known.get(path)
        try:
            return verdict is not None and verdict[:2] == _size_and_time(Path(path).stat())
        except OSError:
            return False


def _examine(path: str) -> Verdict:
    size = mtime_ns = -1
    try:
        about = Path(path).stat()
        size, mtime_ns = _size_and_time(about)
        if not stat.S_ISREG(about.st_mode):  # opening a pipe would wait for ever
            return Verdict(size, mtime_ns, reason="is not a regular file")
        content = Path(path).read_bytes()
    except OSError as error:
        return Verdict(size, mtime_ns, reason=f"cannot be read ({error.strerror or error})")
    if not content:
        return Verdict(size, mtime_ns, reason="is empty (0 bytes)")
    digest = content_digest(content)
    try:
        height, width = decode(io.BytesIO(content), channels=3).shape[:2]
    except BadImage as bad:
        return Verdict(size, mtime_ns, digest, reason=str(bad))
    return Verdict(size, mtime_ns, digest, width, height)


def _size_and_time(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns


def _judge(entry: Entry, verdicts: _Verdicts, min_size: int) -> ImageRecord | str:
    """The image, or the reason why there is none."""
    if entry.problem:
        return entry.problem
    own = verdicts[entry.path]
    make = partial(ImageRecord, entry.path, entry.name, own.width, own.height, tag=entry.tag, part=entry.part)
    problem = _problem(own, min_size)
    if problem or entry.target_path is None:
        return problem or make(own.digest)
    other = verdicts[entry.target_path]
    problem = _problem(other, min_size)
    if problem:
        return f"its target {entry.target_path} {problem}"
    if (own.width, own.height) != (other.width, other.height):
        return f"is {own.width}x{own.height} pixels, its target {entry.target_path} {other.width}x{other.height}"
    digest = hashlib.blake2b((own.digest + other.digest).encode(), digest_size=16).hexdigest()
    return make(digest, target_path=entry.target_path)


def _problem(verdict: Verdict, min_size: int) -> str:
    if verdict.reason:
        return verdict.reason
    if min(verdict.width, verdict.height) < min_size:
        return f"is too small ({verdict.width}x{verdict.height} pixels, needed are {min_size}x{min_size})"
    return ""


def _report(bad: list[str], total: int, on_bad_image: str, cache: Cache) -> None:
    shown = bad
    if len(bad) > SHOWN:
        with cache.writing("bad_pictures.txt") as temporary:
            temporary.write_text("\n".join(bad) + "\n", encoding="utf-8")
        shown = [*bad[: SHOWN - 1], f"... and {len(bad) - SHOWN + 1} more, see {cache.path('bad_pictures.txt')}"]
    names = "".join(f"\n  {line}" for line in shown)
    count = f"{len(bad)} of {total} images"
    if on_bad_image == "skip":
        rank_zero_warn(f"Left out {count} (--data.on_bad_image skip):{names}")
        return
    raise UserError(
        f"{count} cannot be used:{names}\n"
        "Mend or remove them, or leave them out with --data.on_bad_image skip. (A smaller crop takes smaller ones.)"
    )
