"""How much color hints help: PSNR and colorfulness of the test images with 0, 1, 2, ... hints."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from project.callbacks.pictures import can_show, hint_giver, new_figure
from project.data.batch import Batch
from project.models.metrics import PSNR, ColorfulnessRatio, as_saved
from workbench.errors import UserError
from workbench.loggers import log_image


class HintCurve(Callback):
    """Writes ``hint_curve.csv`` (columns hints, psnr) and ``hint_curve.png`` into the run's folder at every test, that
    which closes a fit included; logs ``test/psnr_hints_N`` and ``test/colorfulness_ratio_hints_N``.

    Every test image is colored once for each count, with hints as exact as in validation, those of a smaller count
    among those of a larger one. Without hints in ``data.pairs`` it does nothing.

    Args:
        counts: Numbers of hints to test with; each costs as much as a test. [] switches the callback off.

    Raises:
        UserError: When a count is negative.
    """

    def __init__(self, counts: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100)) -> None:
        if any(count < 0 for count in counts):
            raise UserError(f"hint_curve.counts are {list(counts)}: a number of hints cannot be negative.")
        self.counts = tuple(sorted(set(counts)))
        self._scores: dict[int, tuple[PSNR, ColorfulnessRatio]] = {}
        self._doing_nothing = PSNR()
        self._shown = False
        self._baseline = 0.0
        self._left_out: list[int] = []
        self._curve: list[tuple[int, float, float]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pairs = hint_giver(trainer)
        self._scores, self._left_out, self._curve, self._shown = {}, [], [], False
        if pairs is None:
            return
        slots = pairs.hints.slots
        self._left_out = [count for count in self.counts if slots is not None and count > slots]
        self._scores = {
            count: (PSNR().to(pl_module.device), ColorfulnessRatio().to(pl_module.device))
            for count in self.counts
            if count not in self._left_out
        }
        self._doing_nothing = PSNR().to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._scores or not can_show(pl_module, batch):
            return
        self._shown = True
        if getattr(batch, "is_padding", None) is not None:
            return
        pairs = hint_giver(trainer)
        target = batch.target.contiguous()
        self._doing_nothing.update(batch.baseline, target)
        for count, metrics in self._scores.items():
            # In the run's own precision, as the test itself: a hook is called outside of it.
            with trainer.precision_plugin.test_step_context():
                output = pl_module.restore(pairs.with_hints(batch, count).input)
            output = as_saved(output).contiguous()
            for metric in metrics:
                metric.update(output, target)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather from all processes, and log."""
        if not self._scores or not self._shown:
            return
        self._baseline = float(self._doing_nothing.compute())
        for count, (psnr, ratio) in self._scores.items():
            values = {"psnr": psnr.compute(), "colorfulness_ratio": ratio.compute()}
            logged = {f"test/{name}_hints_{count}": value for name, value in values.items()}
            pl_module.log_dict(logged, sync_dist=True, reduce_fx="max")  # equal on all processes
            self._curve.append((count, *map(float, values.values())))
        self._scores = {}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, draw and print the curve."""
        if not self._curve:
            return
        folder = trainer.log_dir  # the first process tells the others, so each has to ask
        if not trainer.is_global_zero:
            return
        if folder is not None:
            with (Path(folder) / "hint_curve.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["hints", "psnr"])
                writer.writerows([count, f"{psnr:.4f}"] for count, psnr, _ in self._curve)
            path = Path(folder) / "hint_curve.png"
            self._draw(path)
            log_image(trainer, "hint_curve", path)
        self._print()

    def _draw(self, path: Path) -> None:
        import numpy as np

        counts, psnr, ratio = zip(*self._curve, strict=True)
        places = np.log1p(counts)  # 0 has no place on a logarithmic axis
        figure = new_figure(9, 3.6)
        left, right = figure.subplots(1, 2)
        left.plot(places, psnr, "o-", label="the model")
        left.axhline(self._baseline, color="tab:gray", linestyle="--", label=f"doing nothing ({self._baseline:.2f} dB)")
        left.set(title="Likeness to the truth", ylabel="PSNR in dB, mean of the test images")
        right.plot(places, ratio, "o-", color="tab:orange", label="the model")
        right.axhline(1, color="tab:gray", linestyle="--", label="as colorful as the truth")
        right.set(title="Colorfulness", ylabel="ratio to the truth's")
        right.set_ylim(0, 1.1 * max(1, np.nan_to_num(ratio).max()))
        for axis in (left, right):
            axis.set_xticks(places, [str(count) for count in counts])
            axis.set_xlabel("hints an image")
            axis.grid(alpha=0.3)
            axis.legend(fontsize="small")
        figure.savefig(path)

    def _print(self) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(title="What hints bring", title_justify="left")
        for name in ("hints", "PSNR (dB)", "colorfulness"):
            table.add_column(name, justify="right")
        for count, psnr, ratio in self._curve:
            table.add_row(str(count), f"{psnr:.2f}", f"{ratio:.2f} x the truth's")
        table.add_row("doing nothing", f"{self._baseline:.2f}", "", style="dim")
        console = Console(soft_wrap=True)
        console.print(table)
        if self._left_out:
            counts = ", ".join(map(str, self._left_out))
            console.print(f"Left out: {counts} hints, more than the palette has room for.", highlight=False)
