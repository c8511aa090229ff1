"""Which pair maker fits images with partners, or without."""

from __future__ import annotations

from project.data.pairs.base import Given, PairMaker
from project.data.pairs.noise import GaussianNoise
from workbench.console import rank_zero_print
from workbench.errors import UserError


def fitting_pairs(pairs: PairMaker | None, partners: str | None) -> PairMaker:
    """The pair maker that fits images with partners or without.

    A damage cannot be asked for where a partner says what the answer is: then the partners win, and it says so, so that
    any configuration can be pointed at a folder pair.

    Args:
        pairs: What the configuration asks for; None: noise, or the images and their partners as they are.
        partners: Which key gives them, such as "data.target_root"; None: they have none.
    """
    if pairs is None:
        return GaussianNoise() if partners is None else Given()
    if partners is None and pairs.partner == "must":
        raise UserError(f"data.pairs {type(pairs).__name__} wants two folders: set --data.target_root FOLDER.")
    if partners is not None and pairs.partner == "never":
        rank_zero_print(f"{partners} gives both sides of each pair: {type(pairs).__name__} is off.")
        return Given()
    return pairs
