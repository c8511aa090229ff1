"""The four PNGs that ``check`` leaves to look at: what numbers cannot say, an eye sees at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from project.callbacks.grid import draw_histogram, grid, to_image, zoom_for
from project.data.batch import Batch
from project.data.images import center_window
from project.networks.normalize import input_normalization
from workbench.errors import UserError
from workbench.findings.checks import CheckContext

MAX_ROWS, SIDE = 6, 192  # images, and pixels of the middle of larger ones


@torch.no_grad()
def draw_batches(context: CheckContext, folder: Path) -> list[Path]:
    """Write ``batch.png``, ``second_batch.png``, ``train_and_val.png`` and ``input_histogram.png``."""
    first, second, *_ = [*context.batches[:2], *(context.prepare(raw) for raw in context.raw_batches(1, most=1))]
    images = {"batch": _draw_batch(first, context), "second_batch": _draw_batch(second, context)}
    images["train_and_val"] = _draw_splits(context)
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    normalize = input_normalization(context.main.module)
    draw_histogram(first.input, normalize, context.data.signal_channels, folder / "input_histogram.png")
    return [folder / f"{name}.png" for name in (*images, "input_histogram")]


def _draw_batch(batch: Batch, context: CheckContext) -> Image.Image:
    """A row for each image: as the network gets it (-2 black, 2 white), the same de-normalized, and its target."""
    normalize = input_normalization(context.main.module)
    inside = normalize(batch.input) if normalize else batch.input
    outside = normalize.inverse(inside) if normalize else batch.input
    columns = {"as the network sees it, -2 to 2": _shown(inside, context) / 4 + 0.5}
    columns["de-normalized"] = _shown(outside, context)
    views = context.data.pairs.preview(batch)
    columns |= {name: view for name, view in views.items() if name not in ("input", "condition")}
    columns["target"] = batch.target
    seen = inside[:, : context.data.signal_channels]
    return _table(columns, [f"mean {x.mean():.2f}, std {x.std():.2f}" for x in seen])


def _draw_splits(context: CheckContext) -> Image.Image:
    """Training images beside validation images: input and target of each."""
    splits = {"training": context.batches[:1], "validation": []}
    with contextlib.suppress(UserError):  # no validation split
        raws = islice(context.data.val_dataloader(), MAX_ROWS)
        splits["validation"] = [context.prepare(raw, training=False) for raw in raws]
    columns = {}
    for split, batches in splits.items():
        if batches:
            columns[f"{split} input"] = [image for batch in batches for image in _shown(batch.input, context)]
            columns[f"{split} target"] = [image for batch in batches for image in batch.target]
    return _table(columns)


def _table(columns: dict[str, Iterable[Tensor]], captions: Sequence[str] = ()) -> Image.Image:
    """Columns of images under their headings; the captions belong to the first column."""
    rows = [[_middle(image) for image in row] for row in zip(*columns.values(), strict=False)][:MAX_ROWS]
    return grid(rows, list(columns), [[caption] for caption in captions[: len(rows)]])


def _shown(values: Tensor, context: CheckContext) -> Tensor:
    """The image in an input: one channel, or the first three; its hints and maps are left out."""
    return values[:MAX_ROWS, : 3 if context.data.signal_channels >= 3 else 1]


def _middle(image: Tensor) -> Image.Image:
    """The middle of an image, enlarged where it is small; of a mask (H, W) the classes as grays."""
    image = image[None] / max(int(image.max()), 1) if image.ndim == 2 else image
    window = image[(..., *center_window(*image.shape[-2:], SIDE))]
    return to_image(window, zoom_for(*window.shape[-2:]))
