"""What inference commands share: the network of a checkpoint's model, and the images of its run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch import nn

from project.data import ImageDataModule
from project.networks.normalize import input_normalization
from workbench.checkpoint import Checkpoint, load_model, other_version
from workbench.errors import UserError
from workbench.parser import Parser


def load_image_model(checkpoint: Checkpoint, command: str) -> LightningModule:
    """The model of a checkpoint; UserError where it does not map images to images."""
    model = load_model(checkpoint)
    if not hasattr(model, "restore"):
        name = type(model).__name__
        raise UserError(f"{command} is for image-to-image models, and {checkpoint.path} holds a {name}.")
    return model


def command_parser(command: str, description: str, checkpoint: bool = True) -> ArgumentParser:
    """A parser of a command's options, of which the first is ``--ckpt_path``."""
    parser = ArgumentParser(prog=f"python -m project {command}", description=description, exit_on_error=False)
    if checkpoint:
        example = "checkpoint, such as runs/NAME/latest/checkpoints/best.ckpt"
        parser.add_argument("--ckpt_path", type=str, required=True, help=example)
    return parser


def main_network(model: LightningModule) -> nn.Module:
    """The part of a model that maps images to images."""
    return model.network if hasattr(model, "network") else model.generator


def input_channels(network: nn.Module, data: dict[str, Any]) -> int:
    """Channels that a network takes: by its normalization, its attribute, or the run's data settings."""
    normalize = input_normalization(network)
    if normalize is not None:
        return normalize.mean.shape[1]
    return int(getattr(network, "in_channels", None) or data.get("channels", 3))


def digest(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_folder(checkpoint: Checkpoint) -> Path:
    """The folder of the run that wrote a checkpoint; UserError where the checkpoint is not in one."""
    run = checkpoint.path.parent.parent
    if not (run / "config.yaml").is_file():
        where = "is not in a run's folder (runs/NAME/VERSION/checkpoints/)"
        raise UserError(f"{checkpoint.path} {where}: say where to write with --output.")
    return run


def open_data(checkpoint: Checkpoint, words: list[str]) -> ImageDataModule:
    """The data module of a checkpoint's run, set up; words of the command line, such as --data.root, override it."""
    name = checkpoint.data_class or "ImageDataModule"
    if name.rpartition(".")[2] != "ImageDataModule":
        raise UserError(f"{checkpoint.path} was trained on {name}, and not on the images of an ImageDataModule.")
    parser = Parser.of(words)(exit_on_error=False)
    parser.add_class_arguments(ImageDataModule, "data")
    try:
        found = parser.parse_object({"data": dict(checkpoint.config.get("data") or {})})
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}\n{other_version(checkpoint.path)}") from error
    found = parser.parse_args(words, namespace=found) if words else found
    data = parser.instantiate(found).data
    data.prepare_data()
    data.setup()
    return data
