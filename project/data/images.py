"""Image files: what is known of one, its pixels as 8-bit numbers whatever the format; work on many in threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps

from workbench.errors import one_line

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm")
)
AHEAD = 8  # results per thread that may wait to be taken: decoded images must not pile up in memory
Window = tuple[slice, slice]  # rows and columns of an image
Item = TypeVar("Item")
Result = TypeVar("Result")


class BadImage(Exception):
    """A file that holds no usable image; the text is the reason, to be shown behind the file's name."""


@dataclass(frozen=True)
class Entry:
    """A file that a source lists, not yet opened."""

    path: str  # absolute
    name: str  # identity: POSIX path relative to the source's root, the same wherever the folder lies
    target_path: str | None = None  # absolute, of a folder pair
    tag: str = ""  # folder or category, for sampling weights
    part: str = "all"  # "train", "val" or "test" where the source has its own splits
    problem: str = ""  # why it cannot be used, as far as known without opening it (a missing target)


@dataclass(frozen=True)
class ImageRecord(Entry):
    """A file that was decoded whole and found good."""

    width: int = 0  # of the file, upright, before any resizing
    height: int = 0
    digest: str = ""  # hexadecimal BLAKE2b of the file's bytes, or of both files' digests
    origin: str = ""  # of an extra pair, the image that it was predicted from


def content_digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def decode(path: str | Path | BinaryIO, channels: int, mask: bool = False) -> np.ndarray:
    """Decode an image file whole, its first frame, upright, to uint8 (H, W, channels), contiguous.

    Transparency is laid over white; palettes, CMYK and one bit become RGB or gray; gray comes from color by the luma of
    ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B). Grays of 16 bits are divided by 257 and rounded; of 16-bit colors Pillow
    keeps the upper byte, at most one level off. A mask keeps its class numbers as they are, of a palette the indices.

    BadImage gives a short reason; a decompression bomb (above Pillow's limit) is not decoded first.
    """
    try:
        with Image.open(path) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise BadImage("is a decompression bomb, above Pillow's limit")  # which warns up to twice that
            image.load()
            if mask and image.format in ("JPEG", "MPO"):
                raise BadImage("is a JPEG, whose lossy values are no class numbers; save masks as PNG")
            ImageOps.exif_transpose(image, in_place=True)
            return _to_classes(image) if mask else _to_uint8(image, channels)
    except BadImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise BadImage("not an image (its bytes are of no known image format)") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise BadImage(f"cannot be decoded ({one_line(error, 160)})") from error


def resize_shorter(pixels: np.ndarray, size: int | None, mask: bool = False) -> np.ndarray:
    """Resize (H, W, C) to a shorter side of `size`: area mean or, growing, bicubic; masks by nearest neighbor."""
    height, width, channels = pixels.shape
    new = resized(width, height, size)
    if new == (width, height):
        return pixels
    method = Image.Resampling.BOX if new[0] < width else Image.Resampling.BICUBIC
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.asarray(image.resize(new, Image.Resampling.NEAREST if mask else method)).reshape(*new[::-1], channels)


def center_window(height: int, width: int, side: int) -> Window:
    """Rows and columns of the middle, at most `side` pixels high and wide."""
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return slice(top, top + side), slice(left, left + side)


def resized(width: int, height: int, size: int | None) -> tuple[int, int]:
    """(width, height) after `resize_shorter`."""
    shorter = min(width, height)
    return (width, height) if size is None else (round(width * size / shorter), round(height * size / shorter))


def _to_uint8(image: Image.Image, channels: int) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            kind = "floating-point values" if image.mode == "F" else "32-bit integers"
            raise BadImage(f"holds {kind} from {values.min()} to {values.max()}; save it with 8 or 16 bits")
        # 257 is odd, so this rounds to the nearest.
        image = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")  # also 1 bit and palettes: Pillow rounds the luma of RGB alone the same for all
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    return np.array(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def _to_classes(image: Image.Image) -> np.ndarray:
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise BadImage(f"is no mask: it holds {image.mode} instead of one channel of class numbers")
    classes = np.asarray(image)  # of a palette its indices
    if classes.min() < 0 or classes.max() > 255:
        raise BadImage(f"holds class numbers from {classes.min()} to {classes.max()}; they must be 0 to 255")
    return classes.astype(np.uint8)[..., None]


def listed(lines: Sequence[str], most: int = 5) -> str:
    """The first lines of an error's list, and how many more there are."""
    more = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return "".join(f"\n  {line}" for line in (*lines[:most], *more))


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_parallel(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """The function's results in the order of the items.

    A thread a core, for Pillow releases the interpreter lock while it decodes: they were as fast as processes.
    """
    workers = usable_cores()
    with ThreadPoolExecutor(workers) as pool:
        chunks = (items[start : start + AHEAD * workers] for start in range(0, len(items), AHEAD * workers))
        yield from with_progress(chain.from_iterable(pool.map(function, one) for one in chunks), len(items), title)


def with_progress(results: Iterable[Result], total: int, title: str) -> Iterable[Result]:
    """Pass results on, with a progress bar on the error stream if it is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(results, title, total, console=console, transient=True, disable=not console.is_terminal)
