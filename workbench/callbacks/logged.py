"""What is logged counts once, though Lightning goes on showing and writing what was logged in an earlier step."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor


class ClearStepMetrics(Callback):
    """Keeps what one step has logged from being written to the log of a later step, in which it was not logged.

    Else a GAN's log repeats the discriminator's last figures where it rests, and that of a resumed run does not, which
    has none to repeat. Must come before all callbacks that log.
    """

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Take what was logged for single steps from Lightning's list, until it is logged again."""
        for logged in (trainer._results or {}).values():
            if logged.meta.on_step and not logged.meta.on_epoch:
                logged.has_reset = True


def was_updated(value: Any, known: Any) -> bool:
    """Whether a value of ``trainer.callback_metrics`` was logged after another one of its name.

    Lightning makes a new tensor at every look, in the memory of the value that was logged; as long as somebody holds
    the known one, nothing else gets that memory.

    Args:
        value: As it is shown now.
        known: As it was shown at the last look, and kept since; None if there was none.
    """
    if isinstance(value, Tensor) and isinstance(known, Tensor):
        return value is not known and (value.device != known.device or value.data_ptr() != known.data_ptr())
    return value is not known
