"""Members of an ensemble from one run: its best checkpoints, or the end of each cycle of its learning rate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from workbench.callbacks.stopping import require_logged
from workbench.errors import UserError

FILES = "snapshot-*.ckpt"
NEEDED = ("state_dict", "config", "epoch", "global_step", "pytorch-lightning_version")
"""Beside hyper-parameters and the data module's state: what testing and predicting read."""
BOTTOM = 0.1
"""Of a cycle's highest rate: a run that ends no higher has ended its last cycle."""


class Snapshots(ModelCheckpoint):
    """Keeps several ``checkpoints/snapshot-STEP.ckpt`` of one run, for ``python -m project ensemble``.

    Each holds what testing and predicting need: the weights (averaged, where the run averages them), configuration and
    statistics, and nothing to train on with, so it takes a fifth of the last checkpoint's place.

    A cycle ends where the learning rate, having fallen, rises again: before the first step at the higher rate, whatever
    the scheduler (WarmupCosine with cycles, CosineAnnealingWarmRestarts, CyclicLR), and where the run ends with a low
    one. Source: Huang et al. 2017, "Snapshot Ensembles: Train 1, Get M for Free", arXiv:1704.00109.

    A resumed run takes up the snapshots that its checkpoint knows; younger ones are removed, since they come again.

    Args:
        keep: none; best: by validation score; cycles: the ends of the learning rate's cycles.
        most: So many are kept; of cycles the newest.
        monitor: Logged value that best goes by.
        mode: max where higher is better, min where lower is.

    Raises:
        UserError: ``keep`` is unknown, or ``most`` below 1.
    """

    def __init__(
        self,
        keep: Literal["none", "best", "cycles"] = "none",
        most: int = 5,
        monitor: str = "val/psnr",
        mode: Literal["max", "min"] = "max",
    ) -> None:
        if keep not in ("none", "best", "cycles"):
            raise UserError(f"snapshots.keep is {keep!r}: it must be none, best or cycles.")
        if most < 1:
            raise UserError(f"snapshots.most is {most}: it must be at least 1. For none: --snapshots.keep none")
        by_score = keep == "best"
        super().__init__(
            filename="snapshot-{step:06d}",
            monitor=monitor if by_score else None,
            mode=mode,
            save_top_k=most if by_score else 0,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
        self.keep, self.most = keep, most
        self.ends: list[str] = []
        self._rate, self._peak, self._fell = 0.0, 0.0, False
        self._saving = False

    @property
    def paths(self) -> list[Path]:
        """The snapshots that there are, by their steps."""
        return sorted(Path(path) for path in {*self.best_k_models, *self.ends})

    # The best

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when this validation was among the best."""
        if self.keep != "best":
            return
        if not trainer.sanity_checking:
            require_logged(trainer, "snapshots", self.monitor)
        super().on_validation_end(trainer, pl_module)

    # The ends of cycles

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Save what the last step has left, where this one takes a higher rate."""
        if self.keep != "cycles":
            return
        rate = _rate(trainer)
        if self._fell and rate > self._rate:
            self._save_end(trainer)
            self._peak, self._fell = 0.0, False
        self._fell = self._fell or rate < self._rate
        self._rate, self._peak = rate, max(self._peak, rate)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last cycle's end, unless the run was stopped in the middle of it."""
        if self.keep != "cycles":
            return
        rate = _rate(trainer)
        if (self._fell and rate > self._rate) or rate <= BOTTOM * self._peak:
            self._save_end(trainer)

    def _save_end(self, trainer: Trainer) -> None:
        path = self.format_checkpoint_name(self._monitor_candidates(trainer))
        if trainer.fast_dev_run or path in self.ends:
            return
        self._save_checkpoint(trainer, path)
        self.ends.append(path)
        while len(self.ends) > self.most:
            self._remove_checkpoint(trainer, self.ends.pop(0))

    # Files

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self._saving = True
        try:
            super()._save_checkpoint(trainer, filepath)
        finally:
            self._saving = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Of a snapshot, leave out what only training needs. Checkpoint callbacks come after all others here."""
        if not self._saving:
            return
        data = type(getattr(trainer, "datamodule", None)).__qualname__
        for key in set(checkpoint) - {*NEEDED, data}:
            if not re.search(r"hyper_parameters$|hparams_(name|type)$", key):
                del checkpoint[key]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what a killed run has left after the checkpoint that this one goes on from."""
        super().on_train_start(trainer, pl_module)
        if self.keep == "none" or trainer.fast_dev_run or not trainer.is_global_zero:
            return
        for path in set(Path(self.dirpath).glob(FILES)) - set(self.paths):
            path.unlink()

    # Going on

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and where in its cycle the learning rate is."""
        cycle = {
            "ends": [Path(path).name for path in self.ends],
            "rate": self._rate,
            "peak": self._peak,
            "fell": self._fell,
        }
        return {**super().state_dict(), "cycle": cycle}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the snapshots that still lie in this run's folder; those of another run are not of this one."""
        known = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        paths = {key: self._here(path) for key, path in state_dict.items() if key.endswith("_path")}
        kept = {path: score for path, score in known.items() if Path(path).is_file()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": kept, "dirpath": self.dirpath})
        cycle = state_dict["cycle"]
        self.ends = [path for path in map(self._here, cycle["ends"]) if Path(path).is_file()]
        self._rate, self._peak, self._fell = cycle["rate"], cycle["peak"], cycle["fell"]

    def _here(self, path: str) -> str:
        return str(Path(self.dirpath) / Path(path).name) if path else ""


def _rate(trainer: Trainer) -> float:
    """The learning rate of the next step: of the first optimizer, a GAN's generator, its fastest group's."""
    return max((float(group["lr"]) for group in trainer.optimizers[0].param_groups), default=0.0)
