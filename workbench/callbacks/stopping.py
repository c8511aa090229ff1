"""Early stopping that says when the value it watches is not there."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from workbench.errors import UserError


class Patience(EarlyStopping):
    """Ends the run when the validation score has not improved for a while, or is no number any more.

    Args:
        monitor: Logged value to watch.
        mode: max where higher is better, min where lower is.
        patience: Validations without a new best until the run ends.
        min_delta: By how much a new best has to be better, in the value's own unit.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["max", "min"] = "max",
        patience: int = 20,
        min_delta: float = 0.0,
    ) -> None:
        # Lightning's strict mode raises at the end of a run that is over before its first validation.
        super().__init__(
            monitor, min_delta=min_delta, patience=patience, mode=mode, strict=False, check_on_train_epoch_end=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting, with the patience that is configured now."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        if self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED and self.wait_count < self.patience:
            self.stopping_reason, self.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was stopped early stays stopped when it is resumed, as long as it is not given more patience."""
        if self.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the score of this validation."""
        if not trainer.sanity_checking:
            require_logged(trainer, "early_stopping", self.monitor)
        super().on_validation_end(trainer, pl_module)


def require_logged(trainer: Trainer, callback: str, monitor: str) -> None:
    """Check that a validation has logged what a callback goes by.

    Args:
        trainer: The running trainer.
        callback: The callback's key on the command line.
        monitor: The value's name.

    Raises:
        UserError: When it has not.
    """
    if monitor in trainer.callback_metrics or trainer.state.fn != "fit":
        return
    there = ", ".join(sorted(key for key in trainer.callback_metrics if key.startswith("val/")))
    raise UserError(
        f"{callback}.monitor is {monitor!r}, which is not logged.\nThere are: {there or 'none'}.\n"
        "Name one, and say whether it is better high or low: "
        f"--{callback}.monitor val/NAME --{callback}.mode min"
    )
