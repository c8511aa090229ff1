"""What the callbacks that show images share: grids put together pixel by pixel, figures, and where both go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from project.data.pairs import Coloring

GAP = 6
LEGIBLE = 128
"""Pixels that small images are enlarged to, as far as whole multiples go, to be seen on a screen."""


def to_image(picture: Tensor, zoom: int = 1) -> Image.Image:
    """(C, H, W) in [0, 1], any device, 1 or 3 channels -> an RGB image of 8 bits (values outside are clamped).

    Args:
        image: The image.
        zoom: Show each pixel as a square of so many; 1 leaves the image as it is.
    """
    pixels = picture.detach().float().clamp(0, 1).mul(255).round().byte().cpu()
    pixels = pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def zoom_for(height: int, width: int) -> int:
    """How many times an image of few pixels has to be enlarged to be seen."""
    return max(1, LEGIBLE // max(height, width))


def grid(rows: list[list[Image.Image]], headings: list[str], captions: list[list[str]]) -> Image.Image:
    """Rows of images under headings, a caption below each image.

    Args:
        rows: Images, row by row; each is drawn in its own size.
        headings: One for each column.
        captions: One for each image; may be empty.
    """
    font = ImageFont.load_default(13)
    line = 18
    widths = []
    for column, heading in enumerate(headings):
        texts = [heading, *(texts[column] for texts in captions)]
        widths.append(max(*(row[column].width for row in rows), *(int(font.getlength(text)) + 4 for text in texts)))
    heights = [max(picture.height for picture in row) for row in rows]
    lines = [line if any(texts) else 0 for texts in captions]
    canvas = Image.new(
        "RGB",
        (sum(widths) + GAP * (len(widths) + 1), line + sum(heights) + sum(lines) + GAP * (len(rows) + 1)),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    lefts = [GAP + sum(widths[:c]) + GAP * c for c in range(len(widths))]
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, 2), heading, "black", font)
    top = line + 2
    for row, height, below, texts in zip(rows, heights, lines, captions, strict=True):
        for left, picture, text in zip(lefts, row, texts, strict=True):
            canvas.paste(picture, (left, top))
            draw.text((left, top + height + 1), text, "black", font)
        top += height + below + GAP
    return canvas


def middle(picture: Tensor, size: int) -> tuple[slice, slice]:
    """Rows and columns of the center crop of a (..., H, W) tensor, of ``size`` pixels a side or what there is."""
    top, left = (max(0, (side - size) // 2) for side in picture.shape[-2:])
    return slice(top, top + size), slice(left, left + size)


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches, which needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def can_show(pl_module: LightningModule, batch: Any) -> bool:
    """Whether a model makes images of such a batch; either may be somebody's own and about something else."""
    parts = (getattr(batch, name, None) for name in ("input", "target", "baseline"))
    return hasattr(pl_module, "restore") and all(isinstance(part, Tensor) for part in parts)


def pair_maker(trainer: Trainer) -> Any:
    """The data module's pair maker; None where a data module of somebody's own, or loaders alone, have none."""
    return getattr(trainer.datamodule, "pairs", None)


def hint_giver(trainer: Trainer) -> Coloring | None:
    """The data module's pair maker where its images come with color hints, else None."""
    pairs = pair_maker(trainer)
    return pairs if isinstance(pairs, Coloring) and pairs.hints.channels > 0 else None


def sample_path(trainer: Trainer, name: str) -> Path | None:
    """Where an image of a run is kept: ``samples/NAME`` in its folder; None without a folder, and on later processes.

    To be called on every process: the first one tells the others where the run's folder is.
    """
    folder = trainer.log_dir
    if folder is None or not trainer.is_global_zero:
        return None
    path = Path(folder) / "samples" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
