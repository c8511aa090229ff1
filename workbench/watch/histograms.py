"""Histograms for the loggers that show them, and samples of large tensors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from workbench.lightning_private import steps_done

BINS = 64
SAMPLE = 20_000  # values that a histogram is made of


class Histogram(NamedTuple):
    """Counts, the lower edge of the first bin and the upper edge of the last one; all on the device."""

    counts: Tensor
    low: Tensor
    high: Tensor


def sample(values: Tensor, count: int) -> Tensor:
    """About ``count`` values, evenly spread over a tensor's memory, as a view of it; all where there are no more."""
    values = values.detach()
    every = max(values.numel() // count, 1)
    while math.gcd(every, 2 * 3 * 5 * 7) > 1:  # else it could meet the same tap of each kernel alone
        every -= 1
    dense = values.layout is torch.strided and (
        values.is_contiguous() or (values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last))
    )
    if every < 2 or not dense:
        return values
    # Not flatten(): in channels_last order it would copy the whole tensor.
    return torch.as_strided(values, (values.numel() // every,), (every,), values.storage_offset())


def histogram(values: Tensor, bins: int = BINS) -> Histogram:
    """Of a sample of the values, between the least and the greatest of them; what is not finite counts as 0."""
    values = torch.nan_to_num(sample(values, SAMPLE).reshape(-1).float(), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    # histc wants numbers for its range, which would wait for the device: so the values are scaled to [0, bins].
    scaled = (values - low) / (high - low).clamp_min(1e-12) * bins
    return Histogram(torch.bincount(scaled.long().clamp_max(bins - 1), minlength=bins), low, high)


def shows_histograms(trainer: Trainer) -> bool:
    """Whether one of the trainer's loggers does."""
    return any(isinstance(logger, WandbLogger | TensorBoardLogger) for logger in trainer.loggers)


def log_histograms(trainer: Trainer, histograms: dict[str, Histogram]) -> None:
    """Send histograms to those of the trainer's loggers that show them."""
    if not histograms or not shows_histograms(trainer):
        return
    flat = torch.stack([torch.cat([h.counts.float(), h.low[None], h.high[None]]) for h in histograms.values()])
    found = {name: _edges(part) for name, part in zip(histograms, flat.cpu().numpy(), strict=True)}
    step = steps_done(trainer)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            shown = {n: wandb.Histogram(np_histogram=(c.tolist(), e.tolist())) for n, (c, e) in found.items()}
            logger.log_metrics(shown, step=step)
        elif isinstance(logger, TensorBoardLogger):
            for name, (counts, edges) in found.items():
                _to_tensorboard(logger.experiment, name, counts, edges, step)


def _edges(part: Any) -> tuple[Any, Any]:
    import numpy as np

    return part[:-2], np.linspace(part[-2], max(part[-1], part[-2] + 1e-12), len(part) - 1)


def _to_tensorboard(writer: Any, name: str, counts: Any, edges: Any, step: int) -> None:
    middles = (edges[1:] + edges[:-1]) / 2
    writer.add_histogram_raw(
        name,
        min=float(edges[0]),
        max=float(edges[-1]),
        num=int(counts.sum()),
        sum=float((counts * middles).sum()),
        sum_squares=float((counts * middles**2).sum()),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
        global_step=step,
    )
