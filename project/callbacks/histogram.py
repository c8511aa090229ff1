"""The histogram of what the network really gets: the quickest look at a forgotten or repeated scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from project.callbacks.pictures import log_picture


class InputHistogram(Callback):
    """Draws the histogram of the first training batch, before and after normalisation, once a run.

    Args:
        bins: Number of bins; 0 switches the callback off.
    """

    def __init__(self, bins: int = 100) -> None:
        self.bins = bins

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.bins < 1 or trainer.global_step > 0 or not trainer.is_global_zero or trainer.log_dir is None:
            return
        views = {"pixels": batch.input}
        normalize = getattr(getattr(pl_module, "network", None), "normalize_input", None)
        if normalize is not None:
            with torch.no_grad():
                views["normalised"] = normalize(batch.input)
        path = Path(trainer.log_dir) / "samples" / "input_histogram.png"
        path.parent.mkdir(exist_ok=True)
        self._draw(views, path)
        log_picture(trainer, "input/histogram", path)

    def _draw(self, views: dict[str, Tensor], path: Path) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.5 * len(views), 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        for axis, (title, values) in zip(figure.subplots(1, len(views), squeeze=False)[0], views.items(), strict=True):
            values = values.detach().float().cpu()
            colours = ("tab:red", "tab:green", "tab:blue") if values.shape[1] >= 3 else ("tab:gray",)
            for channel in range(values.shape[1]):
                pixels = values[:, channel].flatten().numpy()
                label = f"channel {channel}: mean {pixels.mean():.2f}, std {pixels.std():.2f}"
                colour = colours[channel] if channel < len(colours) else None
                axis.hist(pixels, bins=self.bins, histtype="step", color=colour, label=label)
            axis.set(title=f"first training batch, {title}", xlabel="value", ylabel="pixels")
            axis.legend(fontsize="x-small", loc="upper right")
            axis.margins(y=0.3)
        figure.savefig(path, dpi=110)
