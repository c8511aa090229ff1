"""What the network of a checkpoint was trained for: to color or not, at which size, with which hints."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from project.data.pairs import Coloring, PairMaker
from project.data.sources import partners
from project.inference.prediction.hints_file import EXAMPLE
from project.inference.prediction.wishes import Wishes
from workbench.checkpoint import Checkpoint
from workbench.errors import UserError

SIDES = {"drawings": 96, "CIFAR10": 32, "CIFAR100": 32}
"""Of the images of a source, where they are all of one size."""

UNKNOWN_SIZE = 256
"""For a network trained on whole images, whose size the configuration does not tell."""


def coloring_of(checkpoint: Checkpoint) -> Coloring | None:
    """The pair maker of a network that colors, from the run's configuration; None for other networks.

    Raises:
        UserError: The pair maker's class takes other arguments now.
    """
    data = checkpoint.config.get("data") or {}
    described = data.get("pairs")
    if not isinstance(described, dict) or not _is_coloring(described.get("class_path")):
        return None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(PairMaker, "pairs", fail_untyped=False, required=True)
    try:
        pairs = parser.instantiate(parser.parse_object({"pairs": described})).pairs
    except (ArgumentError, ImportError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{checkpoint.path}: its pair maker {described['class_path']} cannot be built:\n"
            f"  {' '.join(str(error).split())[:300]}\n"
            "Is the code of the pair maker here, and unchanged since? Run from the folder that it was trained in."
        ) from error
    # Images and partners were taken as they are where the pair maker has no use for the partners.
    paired = partners(data.get("source", "demo"), data.get("root"), data.get("target_root")) is not None
    return None if pairs.uses_target == "never" and paired else pairs


def _is_coloring(class_path: Any) -> bool:
    module, _, name = str(class_path).rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):  # of a restorer, whose pair maker need not be here any more
        return False
    return isinstance(found, type) and issubclass(found, Coloring)


def working_size(data: dict[str, Any], wished: int | None) -> tuple[int, str]:
    """Pixels of the shorter side to color at, and where that comes from.

    The size that images were brought to in training, or that those of its source have; else that of its crops: the
    network never saw more at once.

    Args:
        data: The data part of the run's configuration.
        wished: The option, which comes first.
    """
    if wished is not None:
        return wished, "--size"
    known = SIDES.get(data.get("source")) if data.get("root") is None else None
    for key, size in (("resize", data.get("resize")), ("source", known), ("crop", data.get("crop"))):
        if size:
            return size, f"as in its training, data.{key}; --size changes it"
    return UNKNOWN_SIZE, "what it was trained at is not known; --size changes it"


def check_wishes(pairs: Coloring | None, wishes: Wishes) -> None:
    """Refuse hints of a kind that the network was not trained with.

    Raises:
        UserError: Says which kind it takes.
    """
    given = "--palette" if wishes.palette is not None else "--hints" if wishes.hints is not None else None
    if pairs is None:
        if wishes.are_any:
            raise UserError(f"{given or '--size'} is for networks that color, and this one does not. Leave it out.")
        return
    taken = pairs.hints
    if given is None:
        return
    if taken.channels == 0:
        raise UserError(f"This network was trained without hints: it colors on its own. Leave {given} out.")
    if taken.slots is None and given == "--palette":
        raise UserError(
            "This network was trained with hints at their places, not with a palette. Leave --palette out, or use\n"
            f"--hints FILE, a JSON of this form: {EXAMPLE}"
        )
    if taken.slots is not None and given == "--hints":
        raise UserError(
            f"This network was trained with palettes (at most {taken.slots} colors, without places).\n"
            'Use one in place of --hints: --palette "#ff8800,#224466"'
        )
    if taken.slots is not None and len(wishes.palette) > taken.slots:
        raise UserError(
            f"--palette has {len(wishes.palette)} colors, and this network was trained with at most {taken.slots} "
            "(data.pairs.hints.colors). Leave some out."
        )
