"""Early stopping, off unless a metric is named."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer, callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from workbench.monitor import monitor_mode, require_logged


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
        self.given_mode = mode
        # strict would raise at the end of a run that is over before its first validation
        super().__init__(monitor, min_delta, patience, mode=mode or "min", strict=False, check_on_train_epoch_end=False)

    @property
    def enabled(self) -> bool:
        return self.monitor is not None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Turn the comparison around where the metric asks for it."""
        super().setup(trainer, pl_module, stage)
        mode = monitor_mode("early_stopping", self.monitor, self.given_mode, pl_module) if self.monitor else self.mode
        if mode != self.mode:
            self.mode, self.min_delta, self.best_score = mode, -self.min_delta, -self.best_score

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep counting, with the patience that is configured now."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        if self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED and self.wait_count < self.patience:
            self.stopping_reason, self.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was stopped early stays stopped when it is resumed without more patience."""
        if self.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            require_logged(trainer, "early_stopping.monitor", self.monitor)
        super().on_validation_end(trainer, pl_module)
