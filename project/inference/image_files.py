"""Image files of an inference run: which there are, where outputs go; files to 8-bit pixels and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from project.data.folder import walk
from project.data.images import decode
from workbench.errors import UserError

# Extension -> the format that is written, and how. Images of other extensions are written as PNG.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", {"quality": 95, "subsampling": 0})),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF", {"compression": "tiff_adobe_deflate"})),
    ".webp": ("WEBP", {"quality": 95}),
    ".png": ("PNG", {}),
    ".bmp": ("BMP", {}),
}
MAX_PIXELS = 1_000_000_000  # larger images are taken for decompression bombs: their bytes alone fill 3 GB
PROFILE_OF_MODE = {"RGB": b"RGB ", "RGBA": b"RGB ", "L": b"GRAY", "LA": b"GRAY"}


@dataclass(frozen=True)
class ImageFile:
    """A decoded image, with what has to survive into the output."""

    pixels: np.ndarray  # uint8, (H, W, 1) for a gray image, else (H, W, 3); upright
    alpha: np.ndarray | None = None  # uint8, (H, W), where there is transparency; the pixels are the colors under it
    profile: bytes | None = None  # the ICC color profile
    deep: bool = False  # whether it had 16 bits, of which the pixels keep 8


@dataclass(frozen=True)
class InferenceItem:
    """One image to process."""

    name: str  # POSIX path relative to the input folder
    source: Path
    target: Path
    beside: Path | None = None  # a second output, where one is wanted

    def is_done(self, *made_from: Path) -> bool:
        """Whether its output is there, and no older than the image and what else it is made from."""
        if not self.target.is_file():
            return False
        return self.target.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in (self.source, *made_from))


def list_inputs(source: Path, output: Path, beside: str | None = None) -> list[InferenceItem]:
    """List the images of a file or folder with their places in the output folder, sorted by name.

    An output folder inside the input folder is skipped: a second run must not process the outputs of the first.
    ``beside`` names a second output, as in ``NAME.uncertainty.png``. UserError where there is no image, or where an
    output would replace an image or another output.
    """
    if output.is_file() or (not output.exists() and output.suffix.lower() in FORMATS):
        raise UserError(f"--output {output} is a file, or looks like one; give the folder to write into.")
    if source.is_file():
        found = [(source.name, source)]
    else:
        real, own = source.resolve(), output.resolve()
        found = [(name, Path(path)) for name, path in walk(source, "--input")]
        if own != real and own.is_relative_to(real):
            found = [one for one in found if not (real / one[0]).is_relative_to(own)]
    if not found:
        raise UserError(f"--input {source} holds no image of its own, only those of the output folder.")
    items = []
    for name, path in found:
        target = PurePosixPath(name)
        if target.suffix.lower() not in FORMATS:
            target = target.with_suffix(".png")
        second = output / target.with_name(f"{target.stem}.{beside}.png") if beside else None
        items.append(InferenceItem(name, path, output / target, second))
    sources = {item.source.resolve() for item in items}
    taken: dict[Path, str] = {}
    for item in items:
        for path in filter(None, (item.target, item.beside)):
            if path.resolve() in sources:
                raise UserError(f"The output of {item.name} would overwrite the image {path}. Give another --output.")
            if first := taken.get(path.resolve()):
                raise UserError(f"{first} and {item.name} would both become {path}. Rename one of them.")
            taken[path.resolve()] = item.name
    return items


@contextlib.contextmanager
def _large_images_allowed() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@_large_images_allowed()
def read_image(path: str | Path) -> ImageFile:
    """Decode an image of up to a billion pixels; BadImage gives a short reason where it cannot be decoded whole."""
    try:
        with Image.open(path) as image:
            gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
            deep, layers = image.mode.startswith("I") or ";16" in str(image.tile), None
            if image.has_transparency_data and not image.mode.startswith("I"):
                layers = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
            kept = {"profile": image.info.get("icc_profile"), "deep": deep}
    except Exception:
        decode(path, 3)  # raises BadImage with the reason, whatever is wrong with the file
        raise
    if layers is None:
        return ImageFile(decode(path, 1 if gray else 3), **kept)
    return ImageFile(np.ascontiguousarray(layers[..., : 1 if gray else 3]), alpha=layers[..., 3].copy(), **kept)


def write_image(path: Path, pixels: np.ndarray, like: ImageFile) -> None:
    """Write uint8 pixels, (H, W, 1) or (H, W, 3), whole or not at all; the extension decides the format.

    Alpha and color profile of the image ``like`` are kept. JPEG has no alpha: there white lies beneath.
    """
    format_name, options = FORMATS[path.suffix.lower()]
    if like.alpha is not None and format_name == "JPEG":
        pixels, like = on_white(pixels, like.alpha), replace(like, alpha=None)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if like.alpha is not None:
        image.putalpha(Image.fromarray(like.alpha))
    if like.profile and like.profile[16:20] == PROFILE_OF_MODE.get(image.mode):
        options = {**options, "icc_profile": like.profile}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        image.save(part, format=format_name, **options)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def on_white(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """The image over white, as training sees transparency: uint8, (H, W, C), and (H, W) -> (H, W, C)."""
    if alpha is None:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    white = Image.new(image.mode, image.size, "white")
    return np.asarray(Image.composite(image, white, Image.fromarray(alpha))).reshape(pixels.shape)
