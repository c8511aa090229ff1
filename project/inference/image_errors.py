"""The errors of images, simple measures that go with them, and the worst images to look at."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from PIL import Image, ImageOps
from skimage.filters import sobel
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from project.callbacks.grid import grid, to_image
from project.color import gray
from project.models.metrics import PSNR, as_saved, colorfulness
from workbench.checkpoint import atomic_write_text

SIDE = 192  # pixels that the longer side of a worst image is brought to
EDGE = 0.1  # a change of luma is an edge from this share of its range on
MIN_IMAGES = 10  # fewer say nothing about what goes with the error


def edge_density(luma: Tensor) -> float:
    """Share of the pixels where luma (H, W) in [0, 1] changes by EDGE or more, by Sobel's filter."""
    return float((math.sqrt(2) * sobel(luma.double().cpu().numpy()) >= EDGE).mean())


MEASURES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "edge_density": lambda image, luma: edge_density(luma),
    "contrast": lambda image, luma: float(luma.std(correction=0)),
    "brightness": lambda image, luma: float(luma.mean()),
    "colorfulness": lambda image, luma: float(colorfulness(image[None])[0]),
    "pixels": lambda image, luma: float(luma.numel()),
}
"""Name -> measure of an image (1 or 3, H, W) in [0, 1] and its luma (H, W). Colorfulness is that of Hasler and
Suesstrunk (2003)."""


class Row(NamedTuple):
    """An image's error: of the output as it would be saved, for pixels in [0, 1]; PSNR in dB as ``val/psnr`` has it."""

    file: str
    mse: float
    psnr: float
    psnr_baseline: float
    width: int
    height: int
    measures: dict[str, float]


def measure(file: str, output: Tensor, target: Tensor, baseline: Tensor) -> Row:
    """The row of one image; all (C, H, W), the baseline not clipped."""
    saved, psnr, luma = as_saved(output), PSNR().to(target.device).values, gray(target.float()[None])[0, 0]
    return Row(
        file,
        float((saved - target).square().mean()),
        float(psnr(saved[None], target[None].float())),
        float(psnr(baseline[None].float(), target[None].float())),
        target.shape[2],
        target.shape[1],
        {name: function(target.float(), luma) for name, function in MEASURES.items()},
    )


def rank_correlations(rows: Sequence[Row]) -> dict[str, float]:
    """Spearman's rho of each measure with the error, strongest first, without measures that are constant."""
    errors = torch.tensor([row.mse for row in rows], dtype=torch.float64)
    found = {}
    for name in rows[0].measures:
        values = torch.tensor([row.measures[name] for row in rows], dtype=torch.float64)
        if len(values.unique()) > 1 and len(errors.unique()) > 1:
            found[name] = float(spearman_corrcoef(values, errors))
    return dict(sorted(found.items(), key=lambda item: -abs(item[1])))


def describe_errors(rows: Sequence[Row]) -> str:
    """What goes with the error, in a sentence."""
    if len(rows) < MIN_IMAGES:
        return f"{len(rows)} images are too few to say what goes with the error; at least {MIN_IMAGES} are needed."
    # None of the five MEASURES reaches it in 19 of 20 sets of images: the normal distribution's 1 - 0.05 / 2 / 5.
    limit = 2.58 / math.sqrt(len(rows) - 1)
    clear = {name.replace("_", " "): rho for name, rho in rank_correlations(rows).items() if abs(rho) > limit}
    found = ", ".join(f"{'more' if rho > 0 else 'less'} {name} ({rho:+.2f})" for name, rho in clear.items())
    return f"Worse with {found or 'nothing measured here'}; rank correlations up to {limit:.2f} may be chance."


def write_table(rows: list[Row], path: Path) -> None:
    """All rows as CSV; its column ``file`` is what ``--data.exclude`` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*Row._fields[:-1], *MEASURES])
    for row in rows:
        scores = [f"{row.mse:.8g}", f"{row.psnr:.4f}", f"{row.psnr_baseline:.4f}", row.width, row.height]
        writer.writerow([row.file, *scores, *(f"{value:.6g}" for value in row.measures.values())])
    atomic_write_text(path, text.getvalue())


def draw_worst(worst: list[tuple[Row, list[Tensor]]]) -> Image.Image:
    """View, output, target (each on the CPU) and error of images, on one scale of errors for all."""
    errors = [(as_saved(output) - target).abs().mean(dim=0) for _, (_, output, target) in worst]
    sample = torch.cat([error.flatten()[:: 1 + error.numel() // 65536] for error in errors])
    brightest = max(float(sample.quantile(0.995)), 1 / 255)  # a few odd pixels must not make all others black
    rows, captions = [], []
    for number, ((row, images), error) in enumerate(zip(worst, errors, strict=True), 1):
        heat = matplotlib.colormaps["inferno"]((error / brightest).clamp(0, 1).numpy(), bytes=True)[..., :3]
        shown = [*map(to_image, images), Image.fromarray(heat.copy())]
        way = Image.Resampling.LANCZOS if max(shown[0].size) > SIDE else Image.Resampling.NEAREST
        rows.append([ImageOps.contain(image, (SIDE, SIDE), way) for image in shown])
        name = row.file if len(row.file) <= 26 else f"...{row.file[-23:]}"
        captions.append([f"{number}. {name}", f"{row.psnr:.2f} dB (input {row.psnr_baseline:.2f})", "", ""])
    return grid(rows, ["input", "output", "target", f"error, 0 to {255 * brightest:.0f} of 255"], captions)
