"""The two checkpoints of a run: the best by a validation score, and the last, to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from project.callbacks.stopping import require_logged

# One ModelCheckpoint cannot do both: its `save_last` leaves out validations that bring no new best, and its
# `save_on_exception` writes the interrupted weights over the best ones.


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``.

    Args:
        monitor: Logged value to choose by.
        mode: max where higher is better, min where lower is.
    """

    def __init__(self, monitor: str | None = "val/psnr", mode: Literal["max", "min"] = "max") -> None:
        super().__init__(
            filename="best", monitor=monitor, mode=mode, auto_insert_metric_name=False, enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best so far, also where the folder is named from elsewhere; another run has none so far."""
        if not (Path(self.dirpath) / "best.ckpt").is_file():
            return
        paths = {key: self._here(path) for key, path in state_dict.items() if key.endswith("_path")}
        known = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": known, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return str(Path(self.dirpath) / Path(path).name) if path else ""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when this validation was the best one."""
        if not trainer.sanity_checking and self.monitor is not None:
            require_logged(trainer, "best_checkpoint", self.monitor)
        super().on_validation_end(trainer, pl_module)


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt``: written after every validation, at the end, and when the run is interrupted.

    Args:
        on_exception: Save as well when an error or Ctrl-C ends the run.
    """

    def __init__(self, on_exception: bool = True) -> None:
        super().__init__(filename="last", save_top_k=1, enable_version_counter=False, save_on_exception=on_exception)
        self._training = False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the paths of another run are no business of this one."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Until here nothing is worth saving, and a half-restored run must not overwrite what it resumes from."""
        super().on_train_start(trainer, pl_module)
        self._training = True
        self._last_global_step_saved = trainer.global_step

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the steps since the last validation, unless nothing was trained."""
        if self._training:
            super().on_exception(trainer, pl_module, exception)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the steps since the last validation as well."""
        if not trainer.fast_dev_run and trainer.global_step > self._last_global_step_saved:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
