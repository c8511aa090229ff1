"""The images that ``check`` leaves to look at: what the figures cannot tell, an eye sees at once."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from project.callbacks.grid import draw_histogram, grid, middle, to_image, zoom_for
from project.data.batch import Batch
from project.networks.normalize import input_normalization
from workbench.errors import UserError
from workbench.findings.checks import Subject

COUNT = 6
SIDE = 192
"""Pixels of the middle of larger images."""


def draw_pictures(seen: Subject, folder: Path) -> list[Path]:
    """Write ``batch.png``, ``second_batch.png``, ``train_and_val.png`` and ``input_histogram.png``.

    Returns:
        The files.
    """
    normalize = input_normalization(getattr(seen.model, seen.main) if seen.main else seen.model)
    paths = []
    for name, pair in zip(("batch.png", "second_batch.png"), _two_batches(seen), strict=False):
        paths.append(folder / name)
        _batch(pair, normalize, seen).save(paths[-1])
    paths.append(folder / "train_and_val.png")
    _train_and_val(seen).save(paths[-1])
    paths.append(folder / "input_histogram.png")
    _histogram(seen, normalize, paths[-1])
    return paths


def _two_batches(seen: Subject) -> list[Batch]:
    return seen.pairs[:2] if len(seen.pairs) > 1 else [seen.pairs[0], *(seen.pair(raw) for raw in seen.epoch(1, 1))]


def _batch(pair: Batch, normalize: nn.Module | None, seen: Subject) -> Image.Image:
    """A row for each image: as the network gets it (-2 black, 2 white), the same de-normalized, and its target."""
    given = pair.input[:COUNT].float()
    with torch.no_grad():
        inside = given if normalize is None else normalize(given)
        outside = given if normalize is None else normalize.inverse(inside)
    views = getattr(seen.data, "pairs", None)
    shown = {"as the network sees it, -2 to 2": shown_channels(inside, seen) / 4 + 0.5}
    shown["de-normalized"] = shown_channels(outside, seen)
    part = Batch(*[None if values is None else values[:COUNT] for values in pair])
    if seen.hint_channels and hasattr(views, "preview"):
        shown |= {name: view for name, view in views.preview(part).items() if name not in ("input", "condition")}
    shown["target"] = pair.target[:COUNT].float()
    seen_pictures = inside[:, : seen.picture_channels]
    return table_of(shown, [[f"mean {x.mean():.2f}, std {x.std():.2f}"] for x in seen_pictures])


def _train_and_val(seen: Subject) -> Image.Image:
    """Training images beside validation images: input and target of each."""
    sides = {"training": seen.pairs[0]}
    try:
        loader = seen.data.val_dataloader()
        found = []
        for number, raw in enumerate(loader):
            found.append(seen.pair(raw, training=False))
            if number + 1 == COUNT or sum(len(pair.input) for pair in found) >= COUNT:
                break
    except UserError:  # without a validation split there is nothing to put beside
        found = []
    rows: list[list[Image.Image]] = []
    headings = ["training input", "training target"] + (["validation input", "validation target"] if found else [])
    pictures = [(shown_channels(one.input.float(), seen), one.target) for one in [sides["training"]]]
    training = [(a, b) for inputs, targets in pictures for a, b in zip(inputs, targets, strict=True)]
    validation = [
        (a, b) for pair in found for a, b in zip(shown_channels(pair.input.float(), seen), pair.target, strict=True)
    ]
    for position in range(min(COUNT, len(training), len(validation) or COUNT)):
        row = [*training[position], *(validation[position] if validation else ())]
        rows.append([image_of(picture) for picture in row])
    return grid(rows, headings, [[""] * len(headings)] * len(rows))


def shown_channels(values: Tensor, seen: Subject) -> Tensor:
    """The image in an input: one channel, or the first three; its hints and maps are left out."""
    channels = seen.picture_channels
    return values[:, : 3 if channels >= 3 else 1]


def image_of(picture: Tensor) -> Image.Image:
    """The middle of an image, enlarged where it is small."""
    rows, columns = middle(picture, SIDE)
    cut = picture[:, rows, columns]
    return to_image(cut, zoom_for(*cut.shape[-2:]))


def table_of(columns: dict[str, Tensor], captions: list[list[str]]) -> Image.Image:
    """Columns of images under their headings; the captions belong to the first."""
    count = len(next(iter(columns.values())))
    rows = [[image_of(column[number]) for column in columns.values()] for number in range(count)]
    below = [[*caption, *[""] * (len(columns) - len(caption))] for caption in captions]
    return grid(rows, list(columns), below)


def _histogram(seen: Subject, normalize: nn.Module | None, path: Path) -> None:
    given = seen.pairs[0].input
    views = {"pixels": given}
    if normalize is not None:
        with torch.no_grad():
            views["as the network sees them"] = normalize(given)
    draw_histogram(views, seen.hint_channels, path)
