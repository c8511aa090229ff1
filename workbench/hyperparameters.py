"""Hyper-parameters that any checkpoint reader may load: plain values, never modules."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from workbench.lightning_private import given_hyperparameters


def is_plain(value: object) -> bool:
    """Whether the value is a number, a string, None, or lists and dicts of them."""
    if isinstance(value, dict):
        return all(is_plain(item) for item in (*value.keys(), *value.values()))
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return type(value) in (bool, int, float, str, type(None))


def save_plain_hyperparameters(module: LightningModule, arguments: dict[str, object]) -> None:
    """Save a module's constructor arguments, as far as they are plain.

    The command line records modules as class path and arguments, so that everything is saved. In Python the modules are
    left out, and have to be passed again: ``load_from_checkpoint(path, network=...)``.

    Args:
        module: The one under construction, after ``super().__init__()``.
        arguments: Name -> value of the constructor's arguments: ``locals()`` will do.
    """
    if given_hyperparameters() is not None:
        module.save_hyperparameters()
        return
    module.save_hyperparameters({k: v for k, v in arguments.items() if k not in ("self", "__class__") and is_plain(v)})
