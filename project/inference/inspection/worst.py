"""The error analysis: every image's error beside simple measures of it, and the worst ones to look at."""

from __future__ import annotations

import csv
import heapq
import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from project.callbacks.grid import grid
from project.inference.inspection.drawing import HEAT, beside, colored, fit, framed, picture, scale, stack, under
from project.inference.inspection.measures import MEASURES
from project.models.metrics import PERFECT_PSNR, as_saved
from workbench.checkpoint_io import atomic_write_text

WORST = 16
SIDE = 192
"""Pixels that the images are brought to, so that two and their errors fit side by side on a screen."""
NAME = 26
"""Letters of a file's name that fit below its image."""


@dataclass(frozen=True)
class Row:
    """What is known of one image.

    Attributes:
        file: Its name, as ``--data.exclude`` takes it.
        mse: Mean squared error of the answer as it would be saved, for pixels in [0, 1].
        psnr: The same in dB, as ``val/psnr`` is the mean of.
        psnr_baseline: Of the answer that does nothing.
        width: In pixels, of what was looked at.
        height: Likewise.
        measures: Name -> measure of the true image, see ``measures``.
    """

    file: str
    mse: float
    psnr: float
    psnr_baseline: float
    width: int
    height: int
    measures: dict[str, float]


@dataclass(order=True)
class _Kept:
    mse: float
    row: Row = field(compare=False)
    pictures: list[Image.Image] = field(compare=False)
    error: Tensor = field(compare=False)


class Analysis:
    """Counts images as they pass by, and keeps the worst.

    Args:
        count: Of the worst, images to keep.
    """

    def __init__(self, count: int = WORST) -> None:
        self.count = count
        self._rows: list[Row] = []
        self._worst: list[_Kept] = []  # a heap, the best of the worst first

    def add(self, file: str, view: Tensor, output: Tensor, target: Tensor, baseline: Tensor) -> None:
        """Count one image.

        Args:
            file: Its name.
            view: (1 or 3, H, W), what the network was given, for a person.
            output: (C, H, W), the network's answer.
            target: (C, H, W) in [0, 1], the truth.
            baseline: (C, H, W), the answer that does nothing, not clipped.
        """
        output = as_saved(output)
        error = (output - target).abs()
        height, width = target.shape[-2:]
        row = Row(
            file,
            mse=float(error.square().mean()),
            psnr=_psnr(output, target),
            psnr_baseline=_psnr(baseline, target),
            width=width,
            height=height,
            measures={name: measure(target.float()) for name, measure in MEASURES.items()},
        )
        self._rows.append(row)
        if len(self._worst) < self.count or row.mse > self._worst[0].mse:
            shown = [picture(part, SIDE) for part in (view, output, target)]
            kept = _Kept(row.mse, row, shown, error.mean(dim=0).cpu())
            push = heapq.heappush if len(self._worst) < self.count else heapq.heapreplace
            push(self._worst, kept)

    @property
    def rows(self) -> list[Row]:
        """Every image, the worst first."""
        return sorted(self._rows, key=lambda row: (-row.mse, row.file))

    def write(self, path: Path) -> None:
        """All rows as a table (CSV); its column ``file`` is what ``--data.exclude`` reads."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "mse", "psnr", "psnr_baseline", "width", "height", *MEASURES])
        for row in self.rows:
            figures = [f"{row.mse:.8g}", f"{row.psnr:.4f}", f"{row.psnr_baseline:.4f}", row.width, row.height]
            writer.writerow([row.file, *figures, *(f"{value:.6g}" for value in row.measures.values())])
        atomic_write_text(path, text.getvalue())

    def draw(self, what: str) -> Image.Image:
        """The worst images: given, answer, truth and the error, of two images side by side.

        Args:
            what: The images are called, in the title.
        """
        worst = sorted(self._worst, reverse=True)
        # One scale for all, so that they can be compared; a few odd pixels must not make all others black.
        brightest = float(
            torch.cat([kept.error.flatten()[:: 1 + kept.error.numel() // 65536] for kept in worst]).quantile(0.995)
        )
        brightest = max(brightest, 1 / 255)
        cells, captions = [], []
        for number, kept in enumerate(worst, 1):
            row = kept.row
            error = fit(colored(kept.error / brightest, HEAT), SIDE)
            cells.append([*kept.pictures, error])
            decibels = f"{row.psnr:.2f} dB (input {row.psnr_baseline:.2f})"
            captions.append([f"{number}. {_short(row.file)}", decibels, "", ""])
        legend = scale(HEAT, "error: none", f"{255 * brightest:.0f} of 255 levels or more, mean of the channels")
        half = len(cells) if len(cells) < 3 else -(-len(cells) // 2)  # the worst go down the left half
        halves = [
            grid(cells[part], ["input", "output", "truth", "error"], captions[part])
            for part in (slice(half), slice(half, None))
            if cells[part]
        ]
        title = f"The {len(worst)} worst of {len(self._rows)} {what} images, by their mean squared error"
        return framed(under(stack([legend, beside(halves, gap=24)]), title))


def _psnr(output: Tensor, target: Tensor) -> float:
    """In dB, at most 100, as the metric of that name counts it."""
    return min(PERFECT_PSNR, float(peak_signal_noise_ratio(output.float(), target.float(), data_range=1.0)))


def _short(name: str) -> str:
    return name if len(name) <= NAME else "..." + name[3 - NAME :]
