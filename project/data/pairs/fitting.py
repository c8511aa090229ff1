"""Which pair maker fits one folder of pictures, or two."""

from __future__ import annotations

from project.data.pairs.base import Given, PairMaker
from project.data.pairs.noise import GaussianNoise
from project.data.tell import tell
from project.errors import UserError


def fitting_pairs(pairs: PairMaker | None, target_root: str | None) -> PairMaker:
    """The pair maker that fits one folder or two.

    A damage cannot be asked for where the second folder says what the answer is: then the folders win, and it says so,
    so that any configuration can be pointed at a folder pair.
    """
    if pairs is None:
        return GaussianNoise() if target_root is None else Given()
    if target_root is None and pairs.partner == "must":
        raise UserError(f"data.pairs {type(pairs).__name__} wants two folders: set --data.target_root FOLDER.")
    if target_root is not None and pairs.partner == "never":
        tell(f"data.target_root is set: pairs come from the two folders, {type(pairs).__name__} is off.")
        return Given()
    return pairs
