"""What a model has logged since the last look, though Lightning goes on showing what was logged once."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_new(value: Any, known: Any) -> bool:
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
