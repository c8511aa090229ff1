"""The options of ``ensemble``, and what is told of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from workbench.errors import UserError
from workbench.options import apart, read


def parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """Read the command line behind ``ensemble``.

    Returns:
        The options; and the words that change the data settings of the first checkpoint's run.

    Raises:
        UserError: An unknown option, a value that it cannot have, or options that do not go together.
    """
    own, data = apart(arguments)
    options = read(_parser(), own)
    options.ckpts = [path for word in options.ckpts for path in _found(word)]
    if not options.ckpts:
        raise UserError(
            "There is no checkpoint of that pattern; `fit --checkpoint.snapshots best` keeps several of a run."
        )
    if len(options.ckpts) < 2 and not options.turns:
        raise UserError(
            "One checkpoint is no ensemble: give several to --ckpts, or ask it in eight positions: --turns true"
        )
    if (options.input is None) != (options.output is None):
        raise UserError(
            "--input and --output belong together; without both, the ensemble is scored on the test images."
        )
    if options.hints is not None and options.palette is not None:
        raise UserError("--hints and --palette exclude each other: a network takes one of the two.")
    if options.input is None and (options.hints, options.palette, options.size) != (None, None, None):
        raise UserError("--hints, --palette and --size are for the images of --input, which is not given.")
    if options.min_confidence is not None:
        if options.input is None:
            raise UserError("--min_confidence chooses among the images of --input, which is not given.")
        if not 0 <= options.min_confidence <= 1:
            raise UserError(f"--min_confidence must be in [0, 1], not {options.min_confidence}.")
    return options, data


def _found(word: str) -> list[str]:
    """The files of a pattern that no shell has looked up; other words as they are."""
    path = Path(word).expanduser()
    return sorted(map(str, path.parent.glob(path.name))) if "*" in path.name else [word]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m project ensemble",
        description="Several checkpoints, or one in eight positions of the image, answer together. Without --input "
        "they are scored on the test images of the first one's run, each member beside the ensemble.",
        exit_on_error=False,
    )
    add = parser.add_argument
    add(
        "--ckpts",
        type=str,
        nargs="+",
        required=True,
        help="checkpoints: of several runs, or the snapshots of one (fit --checkpoint.snapshots)",
    )
    ways = "how: the mean; by validation score; at each pixel by how close a member is to the median"
    add("--average", type=Literal["plain", "score", "agreement"], default="plain", help=ways)
    add("--turns", type=bool, default=False, help="ask every member in all eight positions, turned and mirrored")
    add("--split", type=Literal["test", "val"], default="test", help="which images to score on")
    add("--input", type=str | None, default=None, help="image or folder of images to restore or color")
    add("--output", type=str | None, default=None, help="folder for the answers and their disagreement maps")
    add("--min_confidence", type=float | None, default=None, help="write images whose confidence (1 less the mean "
        "disagreement) is at least this as pairs to train on, into OUTPUT/pairs")  # fmt: skip
    # Not `str | None`: that goes through YAML first, which takes "#ff8800" for a comment, so for nothing.
    add("--hints", type=str, default=None, help="JSON file of points and their colors, as predict takes it")
    add("--palette", type=str, default=None, help="colors without places, for networks trained with palettes")
    add("--size", type=int | None, default=None, help="shorter side in pixels while coloring; null: as in training")
    add("--tile", type=int, default=512, help="pixels along a tile; 0: no tiles")
    add("--overlap", type=int, default=64, help="pixels that tiles share")
    add("--device", type=Literal["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    add("--data.KEY", type=str | None, default=None, help="any key of the run's data settings, such as --data.root")
    return parser
