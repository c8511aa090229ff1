"""An image file to 8-bit pixels and back, with what must survive the way: alpha, color profile, EXIF, format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from project.data.images import decode

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpe": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jfif": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"quality": 95}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}
"""Extension -> the format that is written, and how. Images of other extensions are written as PNG."""

MOST_PIXELS = 1_000_000_000
"""Larger images are taken for decompression bombs: their bytes alone fill 3 GB, and the answer's as much again."""

_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
_PROFILE_OF_MODE = {"RGB": b"RGB ", "RGBA": b"RGB ", "L": b"GRAY", "LA": b"GRAY"}


@dataclass(frozen=True)
class Opened:
    """A decoded image.

    Attributes:
        pixels: uint8, (H, W, 1) for a gray image, else (H, W, 3); upright.
        alpha: uint8, (H, W), where the image has transparency. Then the pixels are the colors under it.
        profile: The ICC color profile's bytes.
        exif: The EXIF block's bytes, without the orientation.
        notes: What is lost on the way, in a few words each.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()


def open_picture(path: str | Path) -> Opened:
    """Decode an image of any size (up to a billion pixels).

    Raises:
        BadImage: With a short reason, when the file cannot be decoded whole.
    """
    with _large_pictures_allowed():
        try:
            with Image.open(path) as image:
                gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
                kept = {"profile": image.info.get("icc_profile"), "notes": _losses(image), "exif": _exif(image)}
                if image.has_transparency_data and not image.mode.startswith("I"):
                    layers = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
                    pixels = np.ascontiguousarray(layers[..., : 1 if gray else 3])
                    return Opened(pixels, alpha=layers[..., 3].copy(), **kept)
        except Exception:
            # Whatever is wrong with the file, the decoder that indexes training images has the words for it.
            decode(path, 3)
            raise
        return Opened(decode(path, 1 if gray else 3), **kept)


def size_of(path: str | Path) -> tuple[int, int] | None:
    """Width and height of an image as it is seen, upright; None where the file is none."""
    with _large_pictures_allowed():
        try:
            with Image.open(path) as image:
                turned = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
                return image.size[::-1] if turned else image.size
        except Exception:  # whatever is wrong with the file, opening it whole finds the words
            return None


def save_picture(path: Path, pixels: np.ndarray, like: Opened) -> None:
    """Write an image whole or not at all: into a file beside, which then takes the name.

    Args:
        path: Where to; the extension (one of FORMATS) decides the format.
        pixels: uint8, (H, W, 1) or (H, W, 3).
        like: The image whose alpha, profile and EXIF go along. JPEG has no alpha: there white lies beneath.

    Raises:
        OSError: The file cannot be written.
    """
    format_name, options = FORMATS[path.suffix.lower()]
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if like.alpha is not None:
        image.putalpha(Image.fromarray(like.alpha))
        if format_name == "JPEG":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    if like.profile and like.profile[16:20] == _PROFILE_OF_MODE.get(image.mode):
        options = {**options, "icc_profile": like.profile}
    if like.exif and format_name in ("JPEG", "PNG", "WEBP"):
        options = {**options, "exif": like.exif}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        image.save(part, format=format_name, **options)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _losses(image: Image.Image) -> tuple[str, ...]:
    losses = []
    if image.mode.startswith("I") or ";16" in str(image.tile):
        losses.append("16 bits became 8")
    if image.mode == "CMYK":
        losses.append("CMYK became RGB")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a phone's JPEG with a preview behind it
        losses.append("only the first of several frames was restored")
    return tuple(losses)


def _exif(image: Image.Image) -> bytes | None:
    if image.format == "TIFF":
        return None  # there the tags describe the file's own layout as well, which is another one now
    exif = Image.Exif()
    try:
        exif.load(image.getexif().tobytes())  # a copy: the orientation is still to be applied to the image itself
        exif.pop(_ORIENTATION, None)
        return exif.tobytes() if len(exif) else None
    except Exception:  # Pillow writes back less than it reads; a camera's odd tag is no reason to refuse the image
        return None


def has_colors(opened: Opened) -> bool:
    """Whether an image is more than a gray one that was saved as RGB; looked at in every so many pixels."""
    sample = _sample(opened.pixels).astype(np.int16)
    return bool((np.ptp(sample, axis=2) > 24).mean() > 0.02)


def is_ink_alone(opened: Opened) -> bool:
    """Whether the paper of a line drawing is transparent: mostly nothing, and what there is, is dark."""
    if opened.alpha is None:
        return False
    seen = _sample(opened.alpha) > 127
    return bool(0 < seen.mean() < 0.5 and np.median(_sample(opened.pixels)[seen]) < 96)


def _sample(pixels: np.ndarray) -> np.ndarray:
    step = max(1, max(pixels.shape[:2]) // 512)
    return pixels[::step, ::step]


@contextlib.contextmanager
def _large_pictures_allowed() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
