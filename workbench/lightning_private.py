"""Every private name of Lightning that the two packages use, each in one small function with its reason."""

from __future__ import annotations

from lightning.pytorch import Trainer


def batches_done(trainer: Trainer) -> int:
    """Training batches of the current epoch that are finished; right also after a resume in mid-epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.completed
