"""What the images of ``inspect`` share: colors for numbers, cells of one size, lines of text, a scale."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from project.callbacks.grid import GAP, to_image

LINE = 18
PAPER = "white"
HEAT, BOTH_WAYS = "inferno", "RdBu_r"
"""Color maps: for numbers from 0 to 1, and for numbers from -1 to 1 with white in the middle."""


def colored(values: Tensor, colors: str) -> Image.Image:
    """Numbers as colors.

    Args:
        values: (H, W), from 0 to 1 for HEAT, from -1 to 1 for BOTH_WAYS; clamped.
        colors: HEAT or BOTH_WAYS.
    """
    import matplotlib

    share = values.detach().float().cpu().numpy()
    share = np.clip(share if colors == HEAT else (share + 1) / 2, 0, 1)
    return Image.fromarray(matplotlib.colormaps[colors](share, bytes=True)[..., :3].copy())


def fit(image: Image.Image, side: int) -> Image.Image:
    """Enlarged by whole multiples, or made smaller, so that the longer side comes close to so many pixels."""
    longer = max(image.size)
    if longer > side:
        return image.resize([max(1, round(length * side / longer)) for length in image.size], Image.Resampling.LANCZOS)
    return image.resize([length * (side // longer) for length in image.size], Image.Resampling.NEAREST)


def window(picture: Tensor, box: tuple[int, int, int, int], fill: float = 0.5) -> Tensor:
    """The part of a (C, H, W) image within top, left, bottom and right, which may lie outside: filled there."""
    top, left, bottom, right = box
    part = picture.new_full((*picture.shape[:-2], bottom - top, right - left), fill)
    inside = picture[..., max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    y, x = max(0, -top), max(0, -left)
    part[..., y : y + inside.shape[-2], x : x + inside.shape[-1]] = inside
    return part


def mosaic(images: list[Image.Image], columns: int, labels: list[str] | None = None, gap: int = 3) -> Image.Image:
    """Images side by side in rows, in cells of the largest one's size, each with its label below, if any."""
    font = ImageFont.load_default(11)
    line = 14 if labels else 0
    width = max(image.width for image in images)
    width = max([width, *(int(font.getlength(label)) + 2 for label in labels or [])])
    height = max(image.height for image in images)
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    size = (columns * (width + gap) + gap, rows * (height + line + gap) + gap)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, image in enumerate(images):
        left = gap + number % columns * (width + gap)
        top = gap + number // columns * (height + line + gap)
        canvas.paste(image, (left, top))
        if labels:
            draw.text((left, top + height), labels[number], "black", font)
    return canvas


def under(image: Image.Image, *lines: str) -> Image.Image:
    """An image below lines of text, the first one larger."""
    return stack([text(line, 15 if number == 0 else 12) for number, line in enumerate(lines)] + [image])


def text(line: str, size: int = 12) -> Image.Image:
    """A line of text as an image."""
    font = ImageFont.load_default(size)
    canvas = Image.new("RGB", (int(font.getlength(line)) + 4, LINE + size - 12), PAPER)
    ImageDraw.Draw(canvas).text((2, 1), line, "black", font)
    return canvas


def scale(colors: str, low: str, high: str) -> Image.Image:
    """What the colors mean: a strip from low to high."""
    ends = (0, 1) if colors == HEAT else (-1, 1)
    strip = colored(torch.linspace(*ends, 160).expand(12, -1), colors)
    return beside([text(low), strip, text(high)])


def stack(images: list[Image.Image], gap: int = GAP) -> Image.Image:
    """Images one below the other."""
    return _joined(images, gap, across=False)


def beside(images: list[Image.Image], gap: int = GAP) -> Image.Image:
    """Images side by side, their tops in line."""
    return _joined(images, gap, across=True)


def framed(image: Image.Image) -> Image.Image:
    """With a margin."""
    canvas = Image.new("RGB", (image.width + 2 * GAP, image.height + 2 * GAP), PAPER)
    canvas.paste(image, (GAP, GAP))
    return canvas


def picture(values: Tensor, side: int) -> Image.Image:
    """A (1 or 3, H, W) tensor in [0, 1] as an image, its longer side close to so many pixels."""
    return fit(to_image(values), side)


def _joined(images: list[Image.Image], gap: int, across: bool) -> Image.Image:
    along = [image.width if across else image.height for image in images]
    wide = max(image.height if across else image.width for image in images)
    long = sum(along) + gap * (len(images) - 1)
    canvas = Image.new("RGB", (long, wide) if across else (wide, long), PAPER)
    place = 0
    for image, length in zip(images, along, strict=True):
        canvas.paste(image, (place, 0) if across else (0, place))
        place += length + gap
    return canvas
