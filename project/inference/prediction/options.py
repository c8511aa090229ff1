"""The options of ``predict``, and what is told of a wrong one."""

from __future__ import annotations

import argparse
from typing import Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from project.inference.prediction.hints_file import EXAMPLE
from workbench.errors import UserError
from workbench.parser import read_options

_COLORS = f"""networks that color:
  Hints are a JSON file, x and y in pixels from the top left corner of the upright image. "*" stands for every image
  without an entry of its own; for a single image the list alone will do. A color is "#ff8800", "#f80", a CSS name or
  [255, 136, 0].

    {EXAMPLE}

  A palette is for networks that were trained with one: --palette "#ff8800,#224466,white"
  An image is colored at the size of the training, and its colors are carried over to its own size: a photograph
  keeps its own lightness, line art its own lines. --size 0 colors at the full size, tile by tile.
"""


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The lines of the text at the end stay as they are."""


def parse(arguments: list[str]) -> Namespace:
    """Read the command line behind ``predict``.

    Raises:
        UserError: An unknown option, or a value that it cannot have.
    """
    options = read_options(_parser(), arguments)
    for name, least in (("tile", 0), ("overlap", 0), ("batch", 1), ("sigma", 0), ("noise", 0), ("size", 0)):
        if options[name] is not None and options[name] < least:
            raise UserError(f"--{name} {options[name]} is too small: at least {least}.")
    if options.hints is not None and options.palette is not None:
        raise UserError("--hints and --palette exclude each other: a network takes one of the two.")
    return options


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m project predict",
        description="Restore or color one image or a folder of them, of any size, with nothing but a checkpoint.",
        epilog=_COLORS,
        formatter_class=_Formatter,
        exit_on_error=False,
    )
    add = parser.add_argument
    add("--ckpt_path", type=str, required=True, help="checkpoint, such as runs/NAME/latest/checkpoints/best.ckpt")
    add("--input", type=str, required=True, help="image or folder of images")
    add("--output", type=str, required=True, help="folder for the restored images; names and sub-folders are kept")
    add("--recursive", type=bool, default=True, help="look into sub-folders too")
    add("--overwrite", type=bool, default=False, help="restore again what is done; needed after a change of options")
    add("--format", type=Literal["keep", "png"], default="keep", help="keep each image's format, or write PNG")
    add("--tile", type=int, default=512, help="pixels along a tile; smaller needs less memory, 0: no tiles")
    add("--overlap", type=int, default=64, help="pixels that tiles share; more for networks that see further")
    add("--batch", type=int, default=1, help="tiles at once; more may be faster on a GPU")
    add("--device", type=Literal["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    add("--precision", type=Literal["32", "bf16", "16"], default="32", help="bits of the network's arithmetic")
    add("--sigma", type=float | None, default=None, help="noise strength (0 to 255) for a network with a noise map")
    add("--noise", type=float | None, default=None, help="to try it: first add noise of this sigma (0 to 255)")
    # Not `str | None`: that goes through YAML first, which takes "#ff8800" for a comment, so for nothing.
    add("--hints", type=str, default=None, help="JSON file of points and their colors, for a network that colors")
    add("--palette", type=str, default=None, help="colors without places, for a network trained with palettes")
    add("--size", type=int | None, default=None, help="shorter side in pixels while coloring; null: as in training")
    return parser
