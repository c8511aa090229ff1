"""Pictures with captions, put together pixel by pixel: nothing is rescaled on the way."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 6


def to_image(picture: Tensor) -> Image.Image:
    """(C, H, W) in [0, 1], any device, 1 or 3 channels -> an RGB picture of 8 bits (values outside are clamped)."""
    pixels = picture.detach().float().clamp(0, 1).mul(255).round().byte().cpu()
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def grid(rows: list[list[Image.Image]], headings: list[str], captions: list[list[str]]) -> Image.Image:
    """Rows of pictures under headings, a caption below each picture.

    Args:
        rows: Pictures, row by row; each is drawn in its own size.
        headings: One for each column.
        captions: One for each picture; may be empty.
    """
    font = ImageFont.load_default(13)
    line = 18
    widths = [max(max(row[c].width for row in rows), int(font.getlength(h)) + 4) for c, h in enumerate(headings)]
    heights = [max(picture.height for picture in row) for row in rows]
    canvas = Image.new(
        "RGB", (sum(widths) + GAP * (len(widths) + 1), line + sum(heights) + (line + GAP) * len(rows) + GAP), "white"
    )
    draw = ImageDraw.Draw(canvas)
    lefts = [GAP + sum(widths[:c]) + GAP * c for c in range(len(widths))]
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, 2), heading, "black", font)
    top = line + 2
    for row, height, texts in zip(rows, heights, captions, strict=True):
        for left, picture, text in zip(lefts, row, texts, strict=True):
            canvas.paste(picture, (left, top))
            draw.text((left, top + height + 1), text, "black", font)
        top += height + line + GAP
    return canvas


def log_picture(trainer: Trainer, key: str, path: Path) -> None:
    """Send a picture file to those of the trainer's loggers that show pictures."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [str(path)])
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np

            logger.experiment.add_image(key, np.asarray(Image.open(path)), trainer.global_step, dataformats="HWC")
