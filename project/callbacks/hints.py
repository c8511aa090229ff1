"""What color hints do: the metrics with 0, 1, 2, ... hints at every test, and one hint's hue swept round the wheel."""

from __future__ import annotations

import colorsys
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from project.callbacks.grid import (
    grid,
    has_images,
    hint_pairs,
    middle,
    new_figure,
    run_model,
    sample_path,
    to_image,
    zoom_for,
)
from project.data.batch import Batch
from project.data.pairs import Point
from project.models.metrics import PSNR, ColorfulnessRatio, as_saved
from workbench.batch import is_padding
from workbench.errors import UserError
from workbench.loggers import log_image
from workbench.strategies import gather_weights, is_sharded

HUES = 12
SIDE = 128
"""Of the center crop that is swept, in pixels."""


class Hints(Callback):
    """Writes ``hint_curve.csv`` (columns hints, psnr) and ``hint_curve.png`` into the run's folder at every test, that
    which closes a fit included, and logs ``test/psnr_hints_N`` and ``test/colorfulness_ratio_hints_N``; saves
    ``samples/hint_sweep.png`` at validations: the first image with one hint, in twelve hues round the color wheel.

    For the curve every test image is colored once for each count, with hints as exact as in validation, those of a
    smaller count among those of a larger one. The sweep's hint lies at a flat place near the middle, the same each
    time. Without hints in ``data.pairs`` the callback does nothing.

    Args:
        counts: Numbers of hints to test with; each costs as much as a test. [] for no curve.
        sweep: Whether to draw the sweep.
    """

    def __init__(self, counts: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100), sweep: bool = True) -> None:
        if any(count < 0 for count in counts):
            raise UserError(f"hints.counts are {list(counts)}: a number of hints cannot be negative.")
        self.counts, self.sweep = tuple(sorted(set(counts))), sweep
        self._metrics: dict[int, tuple[PSNR, ColorfulnessRatio]] = {}
        self._baseline = PSNR()
        self._curve: dict[int, float] = {}

    def applies(self, datamodule: Any) -> bool:
        """Whether the images come with hints: the command line adds the callback only then."""
        return hint_pairs(datamodule) is not None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pairs, self._curve, self._metrics = hint_pairs(trainer.datamodule), {}, {}
        if pairs is not None:
            room = [count for count in self.counts if pairs.hints.slots is None or count <= pairs.hints.slots]
            device = pl_module.device
            self._metrics = {count: (PSNR().to(device), ColorfulnessRatio().to(device)) for count in room}
            self._baseline = PSNR().to(device)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        if not has_images(batch):
            self._metrics = {}
        if not self._metrics:
            return
        target = batch.target.contiguous()
        for count, metrics in self._metrics.items():
            # In the run's own precision, as the test itself: a hook is called outside of it.
            with trainer.precision_plugin.test_step_context():
                output = run_model(pl_module, hint_pairs(trainer.datamodule).with_hints(batch, count).input)
            if output is None:
                self._metrics = {}
                return
            if not is_padding(batch):
                for metric in metrics:
                    metric.update(as_saved(output).contiguous(), target)
        if not is_padding(batch):
            self._baseline.update(batch.baseline, target)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for count, metrics in self._metrics.items():
            psnr, ratio = (metric.compute() for metric in metrics)
            logged = {f"test/psnr_hints_{count}": psnr, f"test/colorfulness_ratio_hints_{count}": ratio}
            pl_module.log_dict(logged, sync_dist=True, reduce_fx="max")  # equal on all processes
            self._curve[count] = float(psnr)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._curve:
            return
        baseline = float(self._baseline.compute())
        folder = trainer.log_dir  # the first process broadcasts it, so each has to ask
        if folder is None or not trainer.is_global_zero:
            return
        with (Path(folder) / "hint_curve.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["hints", "psnr"], *([n, f"{psnr:.4f}"] for n, psnr in self._curve.items())])
        path = Path(folder) / "hint_curve.png"
        draw_curve(self._curve, baseline, path)
        log_image(trainer, "hint_curve", path)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        pairs = hint_pairs(trainer.datamodule)
        if pairs is None or not self.sweep or batch_idx > 0 or trainer.sanity_checking or not has_images(batch):
            return
        path = sample_path(trainer, "hint_sweep.png")
        if path is None and not is_sharded(trainer):
            return
        window = (slice(1), slice(None), *middle(batch.target, SIDE))
        condition = batch.input[window][:, : batch.input.shape[1] - pairs.hints.channels]
        x, y = flat_spot(batch.target[window][0])
        planes = [pairs.hints.from_points(*condition.shape[-2:], [Point(x, y, color)]) for color in hues()]
        planes = torch.cat(planes).to(condition)
        with gather_weights(trainer):
            output = run_model(pl_module, torch.cat([condition.expand(HUES, -1, -1, -1), planes], dim=1))
        if path is not None and output is not None:
            draw_sweep(pairs.hints.preview(planes[:1], condition)[0], output).save(path)
            log_image(trainer, "hint_sweep", path)


def draw_curve(curve: dict[int, float], baseline: float, path: Path) -> None:
    """PSNR over the number of hints."""
    figure = new_figure(5, 3.6)
    axis, places = figure.subplots(), np.log1p(list(curve))  # 0 has no place on a logarithmic axis
    axis.plot(places, list(curve.values()), "o-", label="the model")
    axis.axhline(baseline, color="tab:gray", linestyle="--", label=f"doing nothing ({baseline:.2f} dB)")
    axis.set(title="What hints bring", xlabel="hints an image", ylabel="PSNR in dB, mean of the test images")
    axis.set_xticks(places, [str(count) for count in curve])
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    figure.savefig(path)


def hues() -> list[tuple[float, float, float]]:
    """The colors of the sweep, RGB in [0, 1]: hues at even distances, starting with red."""
    return [colorsys.hsv_to_rgb(step / HUES, 0.8, 0.9) for step in range(HUES)]


def flat_spot(image: Tensor) -> tuple[int, int]:
    """Where a person would put the one hint: x and y of a flat part of (3, H, W), neither dark nor white, rather in
    the middle."""
    height, width = image.shape[-2:]
    side = min(height, width, max(3, min(height, width) // 8))
    pixels = image.float().cpu()[None]
    mean = avg_pool2d(pixels, side, stride=1)
    spread = (avg_pool2d(pixels.square(), side, stride=1) - mean.square()).clamp_min(0).sqrt()
    y, x = (torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in mean.shape[-2:])
    away = (y[:, None].square() + x.square()).sqrt()
    cost = spread.mean(dim=(0, 1)) + 0.2 * (mean.mean(dim=(0, 1)) - 0.6).abs() + 0.1 * away
    row, column = divmod(int(cost.argmin()), mean.shape[-1])
    return column + side // 2, row + side // 2


def draw_sweep(hint: Tensor, outputs: Tensor) -> Image.Image:
    """The condition with the hint in it, (3, H, W), and under each color the output with it, (12, 3, H, W)."""
    zoom = zoom_for(*outputs.shape[-2:])
    images = [to_image(image, zoom) for image in (hint, *outputs)]
    colors = ["white", *(tuple(round(255 * value) for value in color) for color in hues())]
    swatches = [Image.new("RGB", (images[0].width, 24), color) for color in colors]
    headings = ["the hint's hue", *(f"{360 * step // HUES}°" for step in range(HUES))]
    return grid([swatches, images], headings, [[""] * (HUES + 1), ["the hint at 0°", *[""] * HUES]])
