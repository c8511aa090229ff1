"""The two checkpoints of a run: the best by a validation score, and the last, to go on from."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

# One ModelCheckpoint cannot do both: its `save_last` leaves out validations that bring no new best, and its
# `save_on_exception` writes the interrupted weights over the best ones.


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``.

    Args:
        monitor: Logged value to choose by.
        mode: max where higher is better, min where lower is.
    """

    def __init__(self, monitor: str = "val/psnr", mode: Literal["max", "min"] = "max") -> None:
        super().__init__(
            filename="best", monitor=monitor, mode=mode, auto_insert_metric_name=False, enable_version_counter=False
        )


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt``: written after every validation, at the end, and when the run is interrupted.

    Args:
        on_exception: Save as well when an error or Ctrl-C ends the run.
    """

    def __init__(self, on_exception: bool = True) -> None:
        super().__init__(filename="last", save_top_k=1, enable_version_counter=False, save_on_exception=on_exception)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the steps since the last validation as well."""
        if trainer.global_step > self._last_global_step_saved:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
