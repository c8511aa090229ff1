"""What callbacks and checks draw with: grids of images pixel by pixel, the histogram of an input, and where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
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
    """(1 or 3, H, W) in [0, 1], any device -> an 8-bit RGB image, each pixel a square of ``zoom``; values are clamped."""
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
    tops = [line + 2]
    for row, texts in zip(rows, captions, strict=True):
        tops.append(tops[-1] + max(image.height for image in row) + (line if any(texts) else 0) + GAP)
    canvas = Image.new("RGB", (sum(widths) + GAP * (len(widths) + 1), tops[-1]), "white")
    draw = ImageDraw.Draw(canvas)
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, 2), heading, "black", font)
    for top, row, texts in zip(tops, rows, captions, strict=False):
        for left, image, text in zip(lefts, row, texts, strict=True):
            canvas.paste(image, (left, top))
            draw.text((left, top + max(other.height for other in row) + 1), text, "black", font)
    return canvas


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches, which needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_histogram(views: dict[str, Tensor], hint_channels: int, path: Path, bins: int = 100) -> None:
    """Write the histogram of what a network gets, which shows a forgotten or repeated scaling.

    Args:
        views: Title and values of each, (B, C, H, W), such as before and after normalization.
        hint_channels: So many of the last channels are hints, which get a second row; 0 for none.
        path: The PNG file.
        bins: Number of bins.
    """
    if hint_channels % SLOT:  # hints of somebody's own may be other things than colors with their mask
        hint_channels = 0
    figure = new_figure(4.5 * len(views), 6.4 if hint_channels else 3.2)
    axes = figure.subplots(2 if hint_channels else 1, len(views), squeeze=False)
    mask: Tensor | None = None
    for column, (title, values) in enumerate(views.items()):
        values = values.detach().float().cpu()
        image, hints = values.split([values.shape[1] - hint_channels, hint_channels], dim=1)
        _plot(axes[0, column], image.transpose(0, 1).flatten(1), bool(hint_channels), "pixels", bins)
        axes[0, column].set_title(f"first training batch, {title}")
        if not hint_channels:
            continue
        slots = hints.unflatten(1, (-1, SLOT))
        mask = slots[:, :, 3] > 0 if mask is None else mask  # of the first view, which is not normalized
        # Nearly all of a hint plane is empty, and would bury its colors.
        _plot(
            axes[1, column],
            torch.stack([s[mask] for s in slots[:, :, :3].unbind(2)]),
            False,
            "pixels with a hint",
            bins,
        )
        share = f"in {mask.flatten(1).any(1).float().mean():.0%} of the images, on {mask.float().mean():.1%} of their planes"
        axes[1, column].set_title(f"hints, {title}:\n{share}")
    figure.savefig(path)


def _plot(axis: Any, channels: Tensor, condition: bool, counted: str, bins: int) -> None:
    """One curve for each row of a (C, N) tensor."""
    from matplotlib import colormaps

    names = ["gray"] if len(channels) < 3 else ["red", "green", "blue"] if len(channels) < 5 else []
    names = ["condition"] if condition and len(channels) == 1 else names
    few = ("tab:red", "tab:green", "tab:blue", "black") if len(channels) > 2 else ("tab:gray", "black")
    many = colormaps["viridis"].resampled(len(channels))
    axis.set(xlabel="value", ylabel=counted)
    if channels.shape[1] == 0:
        axis.text(0.5, 0.5, "none in this batch", ha="center", va="center", transform=axis.transAxes)
        return
    for number, pixels in enumerate(channels.numpy()):
        name = names[number] if number < len(names) else f"channel {number}"
        text = f"{name}: mean {pixels.mean():.2f}, std {pixels.std():.2f}"
        if number >= MAX_LISTED - 1 and len(channels) > MAX_LISTED:
            text = f"... and {len(channels) - number} more" if number == MAX_LISTED - 1 else None
        color = many(number) if len(channels) > len(few) else few[number]
        heights, _, _ = axis.hist(pixels, bins=bins, histtype="step", color=color, label=text)
        if heights.max() > len(pixels) / 2 and bins > 2:  # white paper would bury the ink
            axis.set(yscale="log", ylabel=f"{counted}, logarithmic")
    axis.legend(fontsize="x-small", loc="upper right")
    axis.margins(y=0.15 + 0.1 * min(len(channels), MAX_LISTED))  # room for the legend


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


def hint_pairs(trainer: Trainer) -> Coloring | None:
    """The data module's pair maker where its images come with color hints, else None."""
    pairs = getattr(trainer.datamodule, "pairs", None)
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
