"""What callbacks and checks draw with: grids of images pixel by pixel, and the histogram of an input."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from project.data.pairs import Coloring
from project.networks.normalize import Normalize

GAP, LINE = 6, 18  # pixels between images, and of a line of text
LEGIBLE = 128  # pixels that small images are enlarged to, as far as whole multiples go


def to_image(image: Tensor, zoom: int = 1) -> Image.Image:
    """(1 or 3, H, W) in [0, 1], any device -> an 8-bit RGB image, clamped, each pixel a square of ``zoom``."""
    pixels = image.detach().float().clamp(0, 1).mul(255).round().byte().cpu()
    pixels = pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def zoom_for(height: int, width: int) -> int:
    """How many times a small image has to be enlarged to be seen."""
    return max(1, LEGIBLE // max(height, width))


def grid(rows: list[list[Image.Image]], headings: list[str], captions: list[list[str]]) -> Image.Image:
    """Rows of images under one heading a column; captions for the images of a row, from the left, as far as given."""
    font = ImageFont.load_default(13)
    texts = zip_longest(headings, *captions, fillvalue="")
    widths = [
        max(*(image.width for image in column), *(int(font.getlength(text)) + 4 for text in words))
        for column, words in zip(zip(*rows, strict=True), texts, strict=True)
    ]
    heights = [max(image.height for image in row) for row in rows]
    step = GAP + LINE * any(map(any, captions))
    size = (sum(widths) + GAP * (len(widths) + 1), LINE + 2 + sum(heights) + step * len(rows))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    lefts = [GAP + sum(widths[:column]) + GAP * column for column in range(len(widths))]
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, 2), heading, "black", font)
    top = LINE + 2
    for row, words, height in zip_longest(rows, captions, heights, fillvalue=[]):
        for left, image, text in zip_longest(lefts, row, words, fillvalue=""):
            canvas.paste(image, (left, top))
            draw.text((left, top + height + 1), text, "black", font)
        top += height + step
    return canvas


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; without pyplot it needs no display."""
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


@torch.no_grad()
def draw_histogram(values: Tensor, normalize: Normalize | None, channels: int, path: Path) -> None:
    """Write the histogram of an input (B, C, H, W), before and after normalization: it shows a scaling too many.

    Args:
        values: of which the first `channels` are shown: hints lie behind them.
        normalize: what the network does to all of them first.
        path: the PNG file.
    """
    views = {"pixels": values}
    if normalize is not None and normalize.mean.shape[1] == values.shape[1]:
        views["as the network sees them"] = normalize(values)
    figure = new_figure(5 * len(views), 3.6)
    panels = figure.subplots(1, len(views), squeeze=False)[0]
    names = ["gray"] if channels < 3 else ["red", "green", "blue"]  # behind them a map of the noise, without a name
    for panel, (title, view) in zip(panels, views.items(), strict=True):
        for name, pixels in zip_longest(names, view[:, :channels].float().cpu().transpose(0, 1).flatten(1)):
            label = name and f"{name}: mean {pixels.mean():.2f}, std {pixels.std():.2f}"
            panel.hist(pixels.numpy(), bins=100, histtype="step", label=label, color=f"tab:{name or 'olive'}")
        # Logarithmic: white paper would bury the ink.
        panel.set(xlabel="value", ylabel="pixels", yscale="log", title=f"first training batch, {title}")
        panel.legend(fontsize="x-small")
    figure.savefig(path)


def run_file(trainer: Trainer, name: str) -> Path | None:
    """A file's path in the run's folder; None without a folder, and on later processes.

    To be called on every process: the first one broadcasts where the run's folder is.
    """
    folder = trainer.log_dir
    if folder is None or not trainer.is_global_zero:
        return None
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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
