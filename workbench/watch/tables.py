"""Many figures at once: rows of a file, histograms for loggers, and samples of large tensors."""

from __future__ import annotations

import csv
import io
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from workbench.watch.recorder import Recorder, steps_done

FILE = "measurements.csv"
HEADER = "step,measure,layer,value"
BINS = 64
SHOWN = 20_000
"""Values that a histogram is made of."""


class Histogram(NamedTuple):
    """Counts, and where the first bin begins and the last one ends; all on the device."""

    counts: Tensor
    low: Tensor
    high: Tensor


def sample(values: Tensor, count: int) -> Tensor:
    """About ``count`` values, evenly spread over a tensor's memory, as a view of it; all where there are no more."""
    values = values.detach()
    every = values.numel() // count
    if every < 2 or values.layout is not torch.strided or not _dense(values):
        return values
    # Not flatten(): in channels_last order it would copy the whole tensor.
    return torch.as_strided(values, (values.numel() // every,), (every,), values.storage_offset())


def _dense(values: Tensor) -> bool:
    return values.is_contiguous() or (values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last))


def shows_histograms(trainer: Trainer) -> bool:
    """Whether one of the trainer's loggers does."""
    return any(isinstance(logger, WandbLogger | TensorBoardLogger) for logger in trainer.loggers)


def histogram(values: Tensor, bins: int = BINS) -> Histogram:
    """Of a sample of the values that are numbers, between the least and the greatest of them."""
    values = sample(values, SHOWN).reshape(-1).float()
    values = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    # histc wants numbers for its range, which would wait for the device: so the values are scaled to [0, bins].
    scaled = (values - low) / (high - low).clamp_min(1e-12) * bins
    counts = torch.bincount(scaled.long().clamp_max(bins - 1), minlength=bins)
    return Histogram(counts, low, high)


def log_histograms(trainer: Trainer, histograms: dict[str, Histogram]) -> None:
    """Send histograms to those of the trainer's loggers that show them."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger | TensorBoardLogger)]
    if not loggers or not histograms:
        return
    flat = torch.cat([torch.cat([h.counts.float(), h.low[None], h.high[None]]) for h in histograms.values()]).cpu()
    parts = flat.view(len(histograms), -1).numpy()
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _to_wandb(logger, list(histograms), parts, steps_done(trainer))
        else:
            _to_tensorboard(logger, list(histograms), parts, steps_done(trainer))


def _edges(part: object) -> object:
    import numpy as np

    return np.linspace(part[-2], max(part[-1], part[-2] + 1e-12), len(part) - 1)


def _to_wandb(logger: WandbLogger, names: list[str], parts: object, step: int) -> None:
    import wandb

    found = {
        name: wandb.Histogram(np_histogram=(part[:-2].tolist(), _edges(part).tolist()))
        for name, part in zip(names, parts, strict=True)
    }
    logger.log_metrics(found, step=step)


def _to_tensorboard(logger: TensorBoardLogger, names: list[str], parts: object, step: int) -> None:
    for name, part in zip(names, parts, strict=True):
        counts, edges = part[:-2], _edges(part)
        middles = (edges[1:] + edges[:-1]) / 2
        logger.experiment.add_histogram_raw(
            name,
            min=float(part[-2]),
            max=float(part[-1]),
            num=int(counts.sum()),
            sum=float((counts * middles).sum()),
            sum_squares=float((counts * middles**2).sum()),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )


def tell_layers(
    trainer: Trainer, recorder: Recorder, values: dict[str, dict[str, float]], charts: tuple[str, ...] = ()
) -> None:
    """Write figures of single layers into ``measurements.csv`` in the run's folder, and chart some of them.

    Args:
        trainer: The running trainer.
        recorder: The run's.
        values: Measure -> layer -> value.
        charts: Measures that loggers get too, as MEASURE/LAYER; but no CSV, where each would be a column.
    """
    if not trainer.is_global_zero:
        return
    step, text = steps_done(trainer), io.StringIO()
    rows = [(m, layer, value) for m, found in values.items() for layer, value in found.items()]
    csv.writer(text, lineterminator="\n").writerows((step, m, layer, f"{value:.6g}") for m, layer, value in rows)
    recorder.files.append(FILE, text.getvalue().splitlines(), HEADER)
    shown = {f"{m}/{layer}": value for m in charts for layer, value in values.get(m, {}).items()}
    for logger in trainer.loggers:
        if shown and not isinstance(logger, CSVLogger):
            logger.log_metrics(shown, step=step)
