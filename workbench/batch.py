"""A batch, for any task: a tensor, a (named) tuple or a dict; the input comes first, the target second."""

from __future__ import annotations

from typing import Any


def _entry(batch: Any, position: int) -> Any:
    if isinstance(batch, dict):
        batch = tuple(batch.values())
    if isinstance(batch, tuple | list):
        return batch[position] if len(batch) > position else None
    return batch if position == 0 else None


def input_of(batch: Any) -> Any:
    """What a module's forward is called with; None for an empty batch."""
    return _entry(batch, 0)


def target_of(batch: Any) -> Any:
    """What the output is compared with; None where the batch has none."""
    return _entry(batch, 1)


def _named(batch: Any, name: str) -> Any:
    return batch.get(name) if isinstance(batch, dict) else getattr(batch, name, None)


def baseline_of(batch: Any) -> Any:
    """The do-nothing output, ``batch.baseline`` (or the key of that name); None where the batch has none."""
    return _named(batch, "baseline")


def is_padding(batch: Any) -> bool:
    """Whether this rank has the batch only because others have one more: it counts in no metric."""
    return _named(batch, "is_padding") is not None
