"""What color hints do: the metrics with 0, 1, 2, ... hints at every test, and one hint's hue swept round the wheel."""

from __future__ import annotations

import colorsys
import csv
from pathlib import Path
from typing import Any

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
from project.models.color_metrics import ColorfulnessRatio
from project.models.metrics import PSNR, as_saved
from workbench.batch import is_padding
from workbench.errors import UserError
from workbench.loggers import log_image
from workbench.sharding import gather_weights, is_sharded

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
        every_n_validations: Draw the sweep at every n-th validation; 0 for none.

    Raises:
        UserError: A count is negative.
    """

    def __init__(self, counts: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100), every_n_validations: int = 1) -> None:
        if any(count < 0 for count in counts):
            raise UserError(f"hints.counts are {list(counts)}: a number of hints cannot be negative.")
        self.counts, self.every_n_validations = tuple(sorted(set(counts))), every_n_validations
        self._metrics: dict[int, tuple[PSNR, ColorfulnessRatio]] = {}
        self._baseline = PSNR()
        self._curve: list[tuple[int, float, float]] = []
        self._validations = 0
        self._sweep: tuple[Tensor, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were: a resumed run draws at the ones that are due."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume counting."""
        self._validations = state_dict["validations"]

    # The curve

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pairs, self._curve, self._metrics = hint_pairs(trainer), [], {}
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
                output = run_model(pl_module, hint_pairs(trainer).with_hints(batch, count).input)
            if output is None:
                self._metrics = {}
                return
            if not is_padding(batch):
                for metric in metrics:
                    metric.update(as_saved(output).contiguous(), target)
        if not is_padding(batch):
            self._baseline.update(batch.baseline, target)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather from all processes, and log."""
        for count, metrics in self._metrics.items():
            psnr, ratio = (metric.compute() for metric in metrics)
            logged = {f"test/psnr_hints_{count}": psnr, f"test/colorfulness_ratio_hints_{count}": ratio}
            pl_module.log_dict(logged, sync_dist=True, reduce_fx="max")  # equal on all processes
            self._curve.append((count, float(psnr), float(ratio)))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, draw and print the curve."""
        if not self._curve:
            return
        baseline = float(self._baseline.compute())
        folder = trainer.log_dir  # the first process broadcasts it, so each has to ask
        if not trainer.is_global_zero:
            return
        if folder is not None:
            with (Path(folder) / "hint_curve.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([["hints", "psnr"], *([n, f"{psnr:.4f}"] for n, psnr, _ in self._curve)])
            path = Path(folder) / "hint_curve.png"
            draw_curve(self._curve, baseline, path)
            log_image(trainer, "hint_curve", path)
        _print(self._curve, baseline, [count for count in self.counts if count not in self._metrics])

    # The sweep

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        pairs = hint_pairs(trainer)
        if (
            pairs is None
            or self._sweep is not None
            or not self._due()
            or trainer.sanity_checking
            or not (trainer.is_global_zero or is_sharded(trainer))
            or not has_images(batch)
        ):
            return
        window = (slice(1), slice(None), *middle(batch.target, SIDE))
        condition = batch.input[window][:, : batch.input.shape[1] - pairs.hints.channels]
        x, y = flat_spot(batch.target[window][0])
        planes = [pairs.hints.given(*condition.shape[-2:], [Point(x, y, color)]) for color in hues()]
        planes = torch.cat(planes).to(condition)
        with gather_weights(trainer):
            output = run_model(pl_module, torch.cat([condition.expand(HUES, -1, -1, -1), planes], dim=1))
        if output is not None:
            self._sweep = pairs.hints.view(planes[:1], condition)[0].float().cpu(), output.cpu()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or hint_pairs(trainer) is None:
            return
        sweep, self._sweep = self._sweep, None
        path = sample_path(trainer, "hint_sweep.png") if self._due() else None
        self._validations += 1
        if path is not None and sweep is not None:
            draw_sweep(*sweep).save(path)
            log_image(trainer, "hint_sweep", path)

    def _due(self) -> bool:
        return self.every_n_validations > 0 and self._validations % self.every_n_validations == 0


def draw_curve(curve: list[tuple[int, float, float]], baseline: float, path: Path) -> None:
    """PSNR and colorfulness over the number of hints; the curve's points are count, PSNR, ratio."""
    import numpy as np

    counts, psnr, ratio = zip(*curve, strict=True)
    figure = new_figure(9, 3.6)
    for axis, values, level, meaning, title, unit in (
        (
            figure.add_subplot(121),
            psnr,
            baseline,
            f"doing nothing ({baseline:.2f} dB)",
            "Likeness to the target",
            "PSNR in dB",
        ),
        (figure.add_subplot(122), ratio, 1, "as colorful as the target", "Colorfulness", "ratio to the target's"),
    ):
        axis.plot(np.log1p(counts), values, "o-", label="the model")  # 0 has no place on a logarithmic axis
        axis.axhline(level, color="tab:gray", linestyle="--", label=meaning)
        axis.set(title=title, ylabel=unit, xlabel="hints an image")
        axis.set_xticks(np.log1p(counts), [str(count) for count in counts])
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    axis.set_ylim(0, 1.1 * max(1, np.nan_to_num(ratio).max()))
    figure.savefig(path)


def _print(curve: list[tuple[int, float, float]], baseline: float, left_out: list[int]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What hints bring", title_justify="left")
    for name in ("hints", "PSNR (dB)", "colorfulness"):
        table.add_column(name, justify="right")
    for count, psnr, ratio in curve:
        table.add_row(str(count), f"{psnr:.2f}", f"{ratio:.2f} x the target's")
    table.add_row("doing nothing", f"{baseline:.2f}", "", style="dim")
    console = Console(soft_wrap=True)
    console.print(table)
    if left_out:
        counts = ", ".join(map(str, left_out))
        console.print(f"Left out: {counts} hints, more than the palette has room for.", highlight=False)


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
