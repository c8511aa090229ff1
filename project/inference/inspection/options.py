"""The options of ``inspect``, and what is told of a wrong one."""

from __future__ import annotations

from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from workbench.errors import UserError
from workbench.parser import read_options, split_data_args


def parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """Read the command line behind ``inspect``.

    Returns:
        The options; and the words that change the run's data settings, ``--data.KEY`` and its value.

    Raises:
        UserError: An unknown option, or a value that it cannot have.
    """
    own, data = split_data_args(arguments)
    options = read_options(_parser(), own)
    if options.maps < 0:
        raise UserError(f"--maps {options.maps} is too small: at least 0, for none.")
    return options, data


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m project inspect",
        description="Look into a trained network: its first filters, what a layer answers to, and the images that it "
        "fails on, with simple measures that go with the error.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--ckpt_path", type=str, required=True, help="checkpoint, such as runs/NAME/latest/checkpoints/best.ckpt")
    add("--output", type=str | None, default=None, help="folder for the results; default: inspect in the run's folder")
    add("--split", type=Literal["val", "test", "train"], default="val", help="which images of the run to look at")
    add("--layer", type=str | None, default=None, help="layer whose feature maps are shown, such as encoder.1")
    add("--maps", type=int, default=8, help="feature maps to show, those that answer the strongest; 0: none")
    add("--device", type=Literal["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    add("--data.KEY", type=str | None, default=None, help="any key of the run's data settings, such as --data.root")
    return parser
