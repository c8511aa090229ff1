"""Early stopping, off unless a metric is named."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer, callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from workbench.errors import UserError


class EarlyStopping(callbacks.EarlyStopping):
    """Stop the run when a metric has not improved for a while, or is not finite.

    Args:
        monitor: The logged metric; null switches early stopping off.
        mode: min if lower is better, max if higher is.
        patience: Validations without improvement before the run stops.
        min_delta: The smallest change that counts as an improvement.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        patience: int = 20,
        min_delta: float = 0.0,
    ) -> None:
        # strict would raise at the end of a run that is over before its first validation
        super().__init__(monitor, min_delta, patience, mode=mode, strict=False, check_on_train_epoch_end=False)

        self.enabled = monitor is not None

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


def require_logged(trainer: Trainer, key: str, monitor: str) -> None:
    """Raise a UserError if a validation during training has not logged the metric that a config key names."""
    if monitor in trainer.callback_metrics or trainer.state.fn != "fit":
        return
    logged = ", ".join(sorted(trainer.callback_metrics))
    raise UserError(
        f"{key} is {monitor!r}, which is not logged.\nLogged: {logged or 'nothing'}.\n"
        f"Name one of them: --{key} NAME --{key.partition('.')[0]}.mode min (or max, if higher is better)"
    )
