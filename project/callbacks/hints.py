"""What color hints do: the metrics with 0, 1, 2, ... hints at every test."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from project.callbacks.grid import has_images, hint_pairs, new_figure, run_file, run_model
from project.data.batch import Batch
from project.models.metrics import PSNR, as_saved
from workbench.errors import UserError
from workbench.loggers import log_image
from workbench.task import is_padding


class Hints(Callback):
    """Writes ``hint_curve.csv`` (columns hints, psnr) and ``hint_curve.png`` into the run's folder at every test, that
    which closes a fit included, and logs ``test/psnr_hints_N``.

    Every test image is colored once for each count, with hints as exact as in validation, those of a smaller count
    among those of a larger one. Without hints in ``data.pairs`` the callback does nothing.

    Args:
        counts: numbers of hints to test with; each costs as much as a test. [] for no curve.
    """

    def __init__(self, counts: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100)) -> None:
        if any(count < 0 for count in counts):
            raise UserError(f"hints.counts are {list(counts)}: a number of hints cannot be negative.")
        self.counts = sorted(set(counts))
        self._metrics: dict[int, PSNR] = {}
        self._baseline = PSNR()

    def applies(self, datamodule: Any) -> bool:
        """Whether the images come with hints: the command line adds the callback only then."""
        return hint_pairs(datamodule) is not None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pairs, self._metrics = hint_pairs(trainer.datamodule), {}
        if pairs is not None:
            counts = [n for n in self.counts if pairs.hints.slots is None or n <= pairs.hints.slots]
            self._metrics = {count: PSNR().to(pl_module.device) for count in counts}
            self._baseline = PSNR().to(pl_module.device)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        if not has_images(batch):
            self._metrics = {}
        if not self._metrics:
            return
        target = batch.target.contiguous()
        for count, metric in self._metrics.items():
            # In the run's own precision, as the test itself: a hook is called outside of it.
            with trainer.precision_plugin.test_step_context():
                output = run_model(pl_module, hint_pairs(trainer.datamodule).with_hints(batch, count).input)
            if output is None:
                self._metrics = {}
                return
            if not is_padding(batch):
                metric.update(as_saved(output).contiguous(), target)
        if not is_padding(batch):
            self._baseline.update(batch.baseline, target)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = {f"test/psnr_hints_{count}": metric.compute() for count, metric in self._metrics.items()}
        pl_module.log_dict(scores, sync_dist=True, reduce_fx="max")  # equal on all processes

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._metrics:
            return
        curve = {count: float(metric.compute()) for count, metric in self._metrics.items()}
        baseline = float(self._baseline.compute())
        path = run_file(trainer, "hint_curve.png")
        if path is None:
            return
        with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["hints", "psnr"], *([n, f"{psnr:.4f}"] for n, psnr in curve.items())])
        draw_curve(curve, baseline, path)
        log_image(trainer, "hint_curve", path)


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
