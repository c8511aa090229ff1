"""The two checkpoints of a run: the best by a validation score, and the last, to go on from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from workbench.callbacks.stopping import require_logged
from workbench.errors import UserError
from workbench.run_progress import NEVER

# One ModelCheckpoint cannot do both: its `save_last` leaves out validations that bring no new best, and its
# `save_on_exception` writes the interrupted weights over the best ones. Neither saves at the end of a training epoch,
# where Lightning would: the epoch's figures and schedulers come after that, and a resumed run would leave them out.


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``.

    Args:
        monitor: Logged value to choose by; null keeps the newest, as for a GAN, whose PSNR falls while its images get
            better.
        mode: max where higher is better, min where lower is.
    """

    def __init__(self, monitor: str | None = None, mode: Literal["max", "min"] = "max") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
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
            require_logged(trainer, "checkpoint", self.monitor)
        super().on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Of the newest, keep the steps since the last validation as well."""
        if self.monitor is None and not trainer.fast_dev_run and trainer.global_step > self._last_global_step_saved:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt``, from which a run goes on as if it had never stopped, and the one before it.

    Written after every validation, at the end, when a signal or an error ends the run between two steps, and every
    few minutes.

    Args:
        every_n_minutes: Save also when the last one is that old: what a killed run loses at most; 0 for never.
        every_n_steps: Save also every so many steps; 0 for never.
        on_error: Save as well when an error comes between two steps; in the middle of one, half is done.
    """

    def __init__(self, every_n_minutes: float = 5.0, every_n_steps: int = 0, on_error: bool = True) -> None:
        if every_n_minutes < 0 or every_n_steps < 0:
            raise UserError(
                "last_checkpoint.every_n_minutes and every_n_steps must not be negative (0 is never); "
                f"they are {every_n_minutes} and {every_n_steps}."
            )
        super().__init__(filename="last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=False)
        self.every_n_minutes, self.every_n_steps, self.on_error = every_n_minutes, every_n_steps, on_error
        self._saved_at = time.monotonic()
        self._postponed = self._failed = False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the paths of another run are no business of this one."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Until here nothing is worth saving, and a half-restored run must not overwrite what it resumes from."""
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved, self._saved_at = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Nothing: see `workbench.callbacks.place.ExactResume`, which saves before the next step."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless this was the run's last validation: the end is saved with all that belongs to it."""
        if self._should_skip_saving_checkpoint(trainer) or trainer.should_stop:
            return
        if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
            return
        # Gradients that are still collected are in no checkpoint, and schedulers that wait for Lightning to step them
        # after this validation are left out by a resumed run: then after one of the next steps.
        stepped = trainer.lr_scheduler_configs if pl_module.automatic_optimization else []
        waiting = any(config.reduce_on_plateau and config.frequency != NEVER for config in stepped)
        if trainer.fit_loop._should_accumulate() or waiting:
            self._postponed = True
        else:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the steps since the last validation as well."""
        if not trainer.fast_dev_run and trainer.global_step > self._last_global_step_saved:
            self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Nothing: see `workbench.callbacks.place.ExactResume`, which knows whether something is half done."""

    def due(self, trainer: Trainer) -> bool:
        """Whether it is time for one."""
        if trainer.fast_dev_run:
            return False
        minutes = (time.monotonic() - self._saved_at) / 60
        steps = trainer.global_step - self._last_global_step_saved
        return self._postponed or (0 < self.every_n_minutes <= minutes and steps > 0) or 0 < self.every_n_steps <= steps

    def is_saved(self, trainer: Trainer) -> bool:
        """Whether nothing was trained since the last one."""
        return bool(trainer.fast_dev_run) or trainer.global_step == self._last_global_step_saved

    def save(self, trainer: Trainer) -> None:
        """Save; takes all processes."""
        self._failed = True
        self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        self._saved_at, self._postponed, self._failed = time.monotonic(), False, False

    def save_on_error(self, trainer: Trainer) -> None:
        """Save, but not where saving itself was the error, and let no second error hide the first."""
        if self._failed or self.is_saved(trainer):
            return
        try:
            self.save(trainer)
        except UserError as error:
            rank_zero_warn(str(error))
