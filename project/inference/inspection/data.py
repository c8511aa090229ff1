"""The images that a checkpoint was trained on, or others that are named in their place."""

from __future__ import annotations

from typing import Any

from project.data import ImageDataModule
from workbench.checkpoint import Checkpoint
from workbench.errors import UserError
from workbench.parser import Parser

MOST_LINES = 7


def open_data(checkpoint: Checkpoint, words: list[str]) -> ImageDataModule:
    """The data module of a checkpoint's run, ready to be read.

    Args:
        checkpoint: Its configuration says where the images are.
        words: Of the command line, what changes that: ``["--data.root", "FOLDER"]``.

    Raises:
        UserError: An unknown key or impossible value; or the images are not there, or too few.
    """
    settings: dict[str, Any] = dict(checkpoint.config.get("data") or {})
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(ImageDataModule, "data")
    found = parser.parse_object({"data": settings})
    found = parser.parse_args(words, namespace=found) if words else found
    try:
        data = parser.instantiate(found).data
        data.prepare_data()
        data.setup()
    except UserError as error:
        told = "\n".join(str(error).splitlines()[:MOST_LINES])
        raise UserError(
            f"The images of this checkpoint's run cannot be had: {told}\n"
            "Say where they are now, or name others: --data.root FOLDER"
        ) from error
    return data
