"""What callbacks and checks draw with: grids of images pixel by pixel, the histogram of an input, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from project.data.pairs import Coloring

GAP = 6
LEGIBLE = 128
"""Pixels that small images are enlarged to, as far as whole multiples go."""
MAX_LISTED = 8
"""Channels that a legend has room for."""
SLOT = 4
"""Planes of a hint: red, green, blue and the mask that tells where it holds."""


def to_image(image: Tensor, zoom: int = 1) -> Image.Image:
    """(1 or 3, H, W) in [0, 1], any device -> an 8-bit RGB image, clamped, each pixel a square of ``zoom``."""
    pixels = image.detach().float().clamp(0, 1).mul(255).round().byte().cpu()
    pixels = pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def zoom_for(height: int, width: int) -> int:
    """How many times a small image has to be enlarged to be seen."""
    return max(1, LEGIBLE // max(height, width))


def middle(image: Tensor, size: int) -> tuple[slice, slice]:
    """Rows and columns of the center crop of a (..., H, W) tensor, of ``size`` pixels a side or what there is."""
    top, left = (max(0, (side - size) // 2) for side in image.shape[-2:])
    return slice(top, top + size), slice(left, left + size)


def grid(rows: list[list[Image.Image]], headings: list[str], captions: list[list[str]]) -> Image.Image:
    """Rows of images under one heading a column, with a caption (may be empty) below each image."""
    font, line = ImageFont.load_default(13), 18
    widths = []
    for column, heading in enumerate(headings):
        texts = [heading, *(texts[column] for texts in captions)]
        widths.append(max(*(row[column].width for row in rows), *(int(font.getlength(text)) + 4 for text in texts)))
    lefts = [GAP + sum(widths[:column]) + GAP * column for column in range(len(widths))]
    heights = [max(image.height for image in row) for row in rows]
    total = line + 2 + sum(heights) + sum(line * any(texts) + GAP for texts in captions)
    canvas = Image.new("RGB", (sum(widths) + GAP * (len(widths) + 1), total), "white")
    draw = ImageDraw.Draw(canvas)
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, 2), heading, "black", font)
    top = line + 2
    for row, texts, height in zip(rows, captions, heights, strict=True):
        for left, image, text in zip(lefts, row, texts, strict=True):
            canvas.paste(image, (left, top))
            draw.text((left, top + height + 1), text, "black", font)
        top += height + line * any(texts) + GAP
    return canvas


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; without pyplot it needs no display."""
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def draw_histogram(views: dict[str, Tensor], hint_channels: int, path: Path, bins: int = 100) -> None:
    """Write the histogram of what a network gets, which shows a forgotten or repeated scaling.

    Args:
        views: Title and values of each, (B, C, H, W), such as before and after normalization.
        hint_channels: So many of the last channels are hints: their colors are counted where there are hints.
        path: The PNG file.
        bins: Number of bins.
    """
    figure, given = new_figure(5 * len(views), 3.6), None
    for number, (title, values) in enumerate(views.items(), 1):
        image, hints = values.detach().float().cpu().tensor_split([values.shape[1] - hint_channels], dim=1)
        curves = dict(zip(_names(image.shape[1]), image.transpose(0, 1).flatten(1), strict=True))
        if hint_channels and hint_channels % SLOT == 0:  # hints of somebody's own may be other things
            slots = hints.unflatten(1, (-1, SLOT)).unbind(2)
            given = slots[3] > 0 if given is None else given  # of the first view, which is not normalized
            curves |= {f"hints' {name}": slot[given] for name, slot in zip(_names(3), slots[:3], strict=True)}
        axis = figure.add_subplot(1, len(views), number)
        for place, (name, pixels) in enumerate(curves.items()):
            if pixels.numel():
                label = f"{name}: mean {pixels.mean():.2f}, std {pixels.std():.2f}" if place < MAX_LISTED else None
                color = name.rpartition(" ")[2]
                color = f"tab:{color}" if color in ("red", "green", "blue", "gray") else None
                line = ":" if name.startswith("hints'") else "-"
                axis.hist(pixels.numpy(), bins=bins, histtype="step", label=label, color=color, linestyle=line)
        # Logarithmic: white paper would bury the ink.
        axis.set(xlabel="value", ylabel="pixels", yscale="log", title=f"first training batch, {title}")
        axis.legend(fontsize="x-small")
    figure.savefig(path)


def _names(channels: int) -> list[str]:
    """An image's channels, and perhaps a map of its noise behind them."""
    colors = ["gray"] if channels < 3 else ["red", "green", "blue"] if channels < 5 else []
    return [*colors, *(f"channel {number}" for number in range(len(colors), channels))]


def has_images(batch: Any) -> bool:
    """Whether a batch holds what can be shown: input, target and do-nothing output as (B, C, H, W)."""
    parts = (getattr(batch, name, None) for name in ("input", "target", "baseline"))
    return all(isinstance(part, Tensor) and part.ndim == 4 for part in parts)


def run_model(module: LightningModule, x: Tensor) -> Tensor | None:
    """The model's output in [0, 1], (B, 1 or 3, H, W), without gradients; None where it makes no images."""
    if type(module).forward is LightningModule.forward:
        return None
    with torch.inference_mode():
        output = module(x)
    is_image = isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] in (1, 3)
    return output.float().clamp(0, 1) if is_image else None


def hint_pairs(datamodule: Any) -> Coloring | None:
    """The data module's pair maker where its images come with color hints, else None."""
    pairs = getattr(datamodule, "pairs", None)
    return pairs if isinstance(pairs, Coloring) and pairs.hints.channels > 0 else None


def sample_path(trainer: Trainer, name: str) -> Path | None:
    """``samples/NAME`` in the run's folder; None without a folder, and on later processes.

    To be called on every process: the first one broadcasts where the run's folder is.
    """
    folder = trainer.log_dir
    if folder is None or not trainer.is_global_zero:
        return None
    path = Path(folder) / "samples" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
