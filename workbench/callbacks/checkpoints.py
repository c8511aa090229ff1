"""What a run saves and when: its best checkpoint, its last ones, snapshots for an ensemble; and early stopping."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from lightning.pytorch import LightningModule, Trainer, callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn

from workbench.callbacks.progress import NEVER
from workbench.lightning_private import is_accumulating
from workbench.monitor import monitor_mode, require_logged

SNAPSHOTS = "snapshot-*.ckpt"
FOR_TRAINING = ("optimizer_states", "lr_schedulers", "current_model_state", "loops", "callbacks")
LOW = 0.1  # share of a cycle's peak learning rate: a run that ends at or below it has finished its last cycle


def get_rng_state(device: torch.device) -> dict[str, Any]:
    """The states of the generators of Python, NumPy, torch and the device, which a checkpoint may hold."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 what others draw from
    states = {"python": random.getstate(), "numpy": (name, keys.tolist(), *rest), "torch": torch.get_rng_state()}
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state()
    return states


def set_rng_state(states: dict[str, Any], device: torch.device) -> None:
    """Restore what `get_rng_state` returned; a device of another kind keeps its state."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if device.type != "cpu" and "device" in states:
        torch.get_device_module(device).set_rng_state(states["device"].cpu())


class Checkpoints(callbacks.Checkpoint):
    """Keep ``best.ckpt``, ``last.ckpt`` and ``previous.ckpt``, and on request snapshots, in ``checkpoints/``.

    `ExactResume` saves ``last.ckpt`` between two steps when it `is_due`; Lightning's ModelCheckpoint saves the end of
    an epoch before its metrics and schedulers. ``snapshot-STEP.ckpt`` holds only what testing and predicting need. A
    cycle (Huang et al. 2017, "Snapshot Ensembles", arXiv:1704.00109) ends before the learning rate rises, and at the
    end of a run with a low one.

    Args:
        monitor: The metric that the best are chosen by, which validations must log; null: the newest are the best.
        mode: min if lower is better, max if higher is; by default as the metric has it.
        every_n_minutes: Save ``last.ckpt`` not only after validations: the most that a killed run loses; 0 for never.
        every_n_steps: The same in optimizer steps; 0 for never.
        snapshots: none, best (by `monitor`), or cycles (the ends of the learning rate's cycles).
        most: How many snapshots are kept; of cycles the newest.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        every_n_minutes: NonNegativeFloat = 5.0,
        every_n_steps: NonNegativeInt = 0,
        snapshots: Literal["none", "best", "cycles"] = "none",
        most: PositiveInt = 5,
    ) -> None:
        self.monitor, self.mode, self.snapshots, self.most = monitor, mode, snapshots, most
        self.every_n_minutes, self.every_n_steps = every_n_minutes, every_n_steps
        self.folder = Path("checkpoints")
        self.saved_step: int | None = None  # of last.ckpt; until training starts nothing is worth saving
        self.is_saving = False  # stays so where saving failed
        self._saved_at = time.monotonic()
        self._postponed = False
        self._best: dict[str, float] = {}  # file name -> score, higher is better
        self._kept: dict[str, float] = {}  # the same for snapshots; for cycles the score is the step
        self._is_snapshot = False
        self._rate, self._peak, self._fell = 0.0, 0.0, False  # of the learning rate in the current cycle
        self._rng: dict[str, Any] = {}
        self._loaded_rng: list[dict[str, Any]] | None = None

    @property
    def best_model_path(self) -> str:  # Lightning reads it too
        return str(self.folder / "best.ckpt") if self._best else ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir or trainer.default_root_dir  # a broadcast: every process asks
        if stage == "fit":
            self.folder, self.saved_step = Path(folder).absolute() / "checkpoints", None
        if self.monitor is not None:
            self.mode = monitor_mode("checkpoint", self.monitor, self.mode, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_step, self._saved_at = trainer.global_step, time.monotonic()
        if self.snapshots != "none" and not trainer.fast_dev_run and trainer.is_global_zero:
            for path in self.folder.glob(SNAPSHOTS):
                if path.name not in self._kept:  # of a killed run, after the checkpoint that this one resumes from
                    path.unlink()
        loaded, self._loaded_rng = self._loaded_rng, None
        if loaded is not None and len(loaded) == trainer.world_size:
            set_rng_state(loaded[trainer.global_rank], trainer.strategy.root_device)
        self._rng = get_rng_state(trainer.strategy.root_device)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self.snapshots != "cycles":
            return
        rate = _learning_rate(trainer)
        if self._fell and rate > self._rate:
            self._save_snapshot(trainer, trainer.global_step)
            self._peak, self._fell = 0.0, False
        self._fell = self._fell or rate < self._rate
        self._rate, self._peak = rate, max(self._peak, rate)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._rng = get_rng_state(trainer.strategy.root_device)

    on_validation_start = on_train_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rng = get_rng_state(trainer.strategy.root_device)
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.monitor is not None:
            require_logged(trainer, "checkpoint.monitor", self.monitor)
        self._save_best(trainer)
        if self.is_saved(trainer) or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step:
            return  # at its end a run saves the last one, with everything that belongs to it
        # Accumulated gradients are in no checkpoint, and a resumed run would skip schedulers that Lightning steps after
        # this validation: then save after one of the next steps.
        stepped = trainer.lr_scheduler_configs if pl_module.automatic_optimization else []
        waiting = any(config.reduce_on_plateau and config.frequency != NEVER for config in stepped)
        if is_accumulating(trainer) or waiting:
            self._postponed = True
        else:
            self.save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is None:
            self._save_best(trainer)
        if self.snapshots == "cycles":
            rate = _learning_rate(trainer)
            if (self._fell and rate > self._rate) or rate <= LOW * self._peak:
                self._save_snapshot(trainer, trainer.global_step)
        if not self.is_saved(trainer):  # after the snapshots, which it lists
            self.save_last(trainer)

    def is_due(self, trainer: Trainer) -> bool:
        """Whether it is time to save ``last.ckpt``."""
        if self.is_saved(trainer):
            return False
        minutes, steps = (time.monotonic() - self._saved_at) / 60, trainer.global_step - self.saved_step
        return self._postponed or 0 < self.every_n_minutes <= minutes or 0 < self.every_n_steps <= steps

    def is_saved(self, trainer: Trainer) -> bool:
        """Whether ``last.ckpt`` holds all steps so far; a half-restored run must not overwrite what it resumes from."""
        return bool(trainer.fast_dev_run) or self.saved_step in (None, trainer.global_step)

    def save_last(self, trainer: Trainer) -> None:
        """Save ``last.ckpt``; all processes call this."""
        self.is_saving = True
        trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
        self.saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._postponed = self.is_saving = False

    def _save_best(self, trainer: Trainer) -> None:
        score = float(trainer.global_step)
        if self.monitor is not None:
            value = float(trainer.callback_metrics[self.monitor])
            score = value if self.mode == "max" else -value
        score = -math.inf if math.isnan(score) else score
        self._keep(trainer, self._best, 1, "best.ckpt", score)
        if self.snapshots == "best":
            self._save_snapshot(trainer, score)

    def _save_snapshot(self, trainer: Trainer, score: float) -> None:
        name = f"snapshot-{trainer.global_step:06d}.ckpt"
        if name not in self._kept:
            self._is_snapshot = True
            self._keep(trainer, self._kept, self.most, name, score)
            self._is_snapshot = False

    def _keep(self, trainer: Trainer, kept: dict[str, float], most: int, name: str, score: float) -> None:
        """Save a checkpoint among the `most` with the highest scores, in place of the lowest one."""
        if trainer.fast_dev_run:
            return
        lowest = min(kept, key=kept.__getitem__) if len(kept) >= most else None
        if not trainer.strategy.reduce_boolean_decision(lowest is None or score > kept[lowest]):
            return
        if lowest is not None:
            del kept[lowest]
        kept[name] = score
        trainer.save_checkpoint(self.folder / name, weights_only=False)
        if lowest not in (None, name):
            trainer.strategy.remove_checkpoint(self.folder / lowest)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._is_snapshot:
            for key in FOR_TRAINING:
                checkpoint.pop(key, None)
            return
        states = [self._rng or get_rng_state(trainer.strategy.root_device)] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, states[0])
        checkpoint["random_states"] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the random states until training starts: building model and loaders draws numbers."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._loaded_rng = checkpoint.get("random_states")

    def state_dict(self) -> dict[str, Any]:
        chosen_by = [self.monitor, self.mode, self.snapshots]
        cycle = [self._rate, self._peak, self._fell]
        return {"chosen_by": chosen_by, "best": dict(self._best), "kept": dict(self._kept), "cycle": cycle}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the files in this run's folder (those of another run are not its own), if chosen alike."""
        best, kept = (
            {name: score for name, score in state_dict[key].items() if (self.folder / name).is_file()}
            for key in ("best", "kept")
        )
        monitor, mode, snapshots = state_dict["chosen_by"]
        alike = (monitor, mode) == (self.monitor, self.mode)
        self._best = best if alike else {}
        self._kept = kept if snapshots == self.snapshots and (alike or snapshots == "cycles") else {}
        self._rate, self._peak, self._fell = state_dict["cycle"]


def _learning_rate(trainer: Trainer) -> float:
    """That of the next step: of the first optimizer, a GAN's generator, in its fastest group."""
    return max((float(group["lr"]) for group in trainer.optimizers[0].param_groups), default=0.0)


class EarlyStopping(callbacks.EarlyStopping):
    """Stop the run when a metric has not improved for a while, or is not finite.

    Args:
        monitor: The logged metric; null switches early stopping off.
        mode: min if lower is better, max if higher is; by default as the metric has it.
        patience: Validations without improvement before the run stops.
        min_delta: The smallest change that counts as an improvement.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        patience: int = 20,
        min_delta: float = 0.0,
    ) -> None:
        # strict would raise at the end of a run that is over before its first validation
        super().__init__(monitor, min_delta, patience, mode=mode or "min", strict=False, check_on_train_epoch_end=False)
        self.enabled, self.given_mode = monitor is not None, mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        mode = monitor_mode("early_stopping", self.monitor, self.given_mode, pl_module) if self.enabled else self.mode
        if mode != self.mode:
            self.mode, self.min_delta, self.best_score = mode, -self.min_delta, -self.best_score

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})
        if self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED and self.wait_count < self.patience:
            self.stopping_reason, self.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was stopped early stays stopped when it is resumed without more patience."""
        if self.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        require_logged(trainer, "early_stopping.monitor", self.monitor)
        super().on_validation_end(trainer, pl_module)
