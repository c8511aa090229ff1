"""Every use of Lightning's private attributes, one function each, so that an update of Lightning is checked here."""

from __future__ import annotations

from lightning.pytorch import Trainer


def completed_batches(trainer: Trainer) -> int:
    """Training batches of this epoch that are done, those before a resume included: no public property counts them."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.completed
