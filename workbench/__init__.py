"""Machinery around any LightningModule and LightningDataModule; ``workbench.Watch`` works in any script."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import ``Watch`` when it is asked for, which takes a second."""
    if name == "Watch":
        from workbench.watch import Watch

        return Watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
