"""What inference commands share: the network of a checkpoint's model, and the images of its run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

from project.data import ImageDataModule
from project.networks.normalize import input_normalization
from workbench.checkpoint import Checkpoint
from workbench.errors import UserError
from workbench.parser import Parser


def main_network(model: LightningModule, command: str) -> nn.Module:
    """The part of a model that maps images to images: its `network` or `generator`.

    Raises:
        UserError: the model is of another task.
    """
    parts = (getattr(model, name, None) for name in ("network", "generator"))
    network = next((part for part in parts if isinstance(part, nn.Module)), None)
    if network is None or not hasattr(model, "restore"):
        raise UserError(f"{command} is for image-to-image models, which {type(model).__name__} is not.")
    return network


def input_channels(network: nn.Module, data: dict[str, Any]) -> int:
    """Channels that a network takes: by its normalization, its attribute, or the run's data settings."""
    normalize = input_normalization(network)
    if normalize is not None:
        return normalize.mean.shape[1]
    return int(getattr(network, "in_channels", None) or data.get("channels", 3))


def open_data(checkpoint: Checkpoint, words: list[str]) -> ImageDataModule:
    """The data module of a checkpoint's run, set up.

    Args:
        checkpoint: its configuration says where the images are.
        words: of the command line, overrides such as ["--data.root", "FOLDER"].

    Raises:
        UserError: an unknown key or impossible value; the images are missing or too few.
    """
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(ImageDataModule, "data")
    found = parser.parse_object({"data": dict(checkpoint.config.get("data") or {})})
    found = parser.parse_args(words, namespace=found) if words else found
    try:
        data = parser.instantiate(found).data
        data.prepare_data()
        data.setup()
    except UserError as error:
        reason = "\n".join(str(error).splitlines()[:7])
        raise UserError(
            f"The images of this checkpoint's run cannot be read: {reason}\n"
            "Say where they are now, or name others: --data.root FOLDER"
        ) from error
    return data
