"""The histogram of what the network really gets: the quickest look at a forgotten or repeated scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from project.callbacks.pictures import hint_giver, new_figure, sample_path
from project.networks.normalize import input_normalization
from workbench.loggers import log_image

RGB = ("tab:red", "tab:green", "tab:blue")
LISTED = 8
"""Channels that a legend has room for."""
SLOT = 4
"""Planes of a hint: red, green, blue and the mask that tells where it holds."""


class InputHistogram(Callback):
    """Draws the histogram of the first training batch, before and after normalization, once a run.

    Args:
        bins: Number of bins; 0 switches the callback off.
    """

    def __init__(self, bins: int = 100) -> None:
        self.bins = bins

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.bins < 1 or trainer.global_step > 0 or batch_idx > 0 or not hasattr(batch, "input"):
            return
        path = sample_path(trainer, "input_histogram.png")
        if path is None:
            return
        views = {"pixels": batch.input}
        network = next((part for name in ("network", "generator") if (part := getattr(pl_module, name, None))), None)
        normalize = None if network is None else input_normalization(network)
        if normalize is not None:
            with torch.no_grad():
                views["normalized"] = normalize(batch.input)
        pairs = hint_giver(trainer)
        hint_channels = 0 if pairs is None else pairs.hints.channels
        # Hints of somebody's own may be other things than colors with their mask.
        self.draw(views, hint_channels if hint_channels % SLOT == 0 else 0, path)
        log_image(trainer, "input/histogram", path)

    def draw(self, views: dict[str, Tensor], hint_channels: int, path: Path) -> None:
        """Write the histograms as an image.

        Args:
            views: Title and values of each, (B, C, H, W).
            hint_channels: So many of the last channels are hints, a second row; 0 for none.
            path: The PNG file.
        """
        views = {title: values.detach().float().cpu() for title, values in views.items()}
        rows = 2 if hint_channels else 1
        figure = new_figure(4.5 * len(views), 3.2 * rows)
        axes = figure.subplots(rows, len(views), squeeze=False)
        first = next(iter(views.values()))
        mask = slots(first[:, first.shape[1] - hint_channels :])[:, :, 3] > 0 if hint_channels else None
        for column, (title, values) in enumerate(views.items()):
            condition, hints = values.split([values.shape[1] - hint_channels, hint_channels], dim=1)
            channels = condition.transpose(0, 1).flatten(1)
            labels = names(len(channels)) if hint_channels == 0 or len(channels) > 1 else ["condition"]
            self._plot(axes[0, column], channels, labels, "pixels")
            axes[0, column].set_title(f"first training batch, {title}")
            if mask is None:
                continue
            # Nearly all of a hint plane is empty, and would bury its colors.
            colors = torch.stack([plane[mask] for plane in slots(hints)[:, :, :3].unbind(2)])
            self._plot(axes[1, column], colors, names(3), "pixels with a hint")
            given, covered = mask.flatten(1).any(1).float().mean(), mask.float().mean()
            share = f"in {given:.0%} of the images, on {covered:.1%} of their planes"
            axes[1, column].set_title(f"hints, {title}:\n{share}")
        figure.savefig(path)

    def _plot(self, axis: Any, channels: Tensor, labels: list[str], counted: str) -> None:
        """One curve for each row of a (C, N) tensor."""
        from matplotlib import colormaps

        few = (*RGB, "black") if len(labels) > 2 else ("tab:gray", "black")
        many = colormaps["viridis"].resampled(len(labels))
        axis.set(xlabel="value", ylabel=counted)
        if channels.shape[1] == 0:
            axis.text(0.5, 0.5, "none in this batch", ha="center", va="center", transform=axis.transAxes)
            return
        for number, (pixels, label) in enumerate(zip(channels.numpy(), labels, strict=True)):
            text = f"{label}: mean {pixels.mean():.2f}, std {pixels.std():.2f}"
            if number >= LISTED - 1 and len(labels) > LISTED:
                text = f"... and {len(labels) - number} more" if number == LISTED - 1 else None
            color = many(number) if len(labels) > len(few) else few[number]
            heights, _, _ = axis.hist(pixels, bins=self.bins, histtype="step", color=color, label=text)
            if heights.max() > len(pixels) / 2 and self.bins > 2:  # white paper would bury the ink
                axis.set(yscale="log", ylabel=f"{counted}, logarithmic")
        axis.legend(fontsize="x-small", loc="upper right")
        axis.margins(y=0.15 + 0.1 * min(len(labels), LISTED))  # room for the legend


def names(channels: int) -> list[str]:
    """What the channels of an input are called: an image's, and perhaps a map of its noise behind them."""
    colors = ["gray"] if channels < 3 else ["red", "green", "blue"] if channels < 5 else []
    return [*colors, *(f"channel {number}" for number in range(len(colors), channels))]


def slots(hints: Tensor) -> Tensor:
    """(B, 4 S, H, W) hint planes -> (B, S, 4, H, W)."""
    return hints.unflatten(1, (-1, SLOT))
