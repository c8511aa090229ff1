"""The options of ``export``, and what is told of a wrong one."""

from __future__ import annotations

from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from workbench.parser import read_options

ENDINGS = {"onnx": ".onnx", "torchscript": ".ts", "state_dict": ".pt"}


def parse(arguments: list[str]) -> Namespace:
    """Read the command line behind ``export``.

    Raises:
        UserError: An unknown option, or a value that it cannot have.
    """
    return read_options(_parser(), arguments)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m project export",
        description="Write a trained network as one file that takes and gives images in [0, 1], of any size and "
        "number, check it against PyTorch, and write a card beside it.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--ckpt_path", type=str, required=True, help="checkpoint, such as runs/NAME/latest/checkpoints/best.ckpt")
    add("--format", type=Literal[tuple(ENDINGS)], default="onnx", help="what to write; state_dict: the weights alone")
    add("--output", type=str | None, default=None, help="file to write; default: export/NAME in the run's folder")
    add("--license", type=str, default="not stated", help="for the card: the terms that the weights may be used by")
    return parser
