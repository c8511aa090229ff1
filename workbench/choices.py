"""A name among known ones, or the error that tells the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from workbench.errors import UserError


def plain(name: str) -> str:
    """``"Leaky-ReLU"``, ``"leaky_relu"`` and ``"LeakyReLU"`` are one name."""
    return str(name).lower().replace("_", "").replace("-", "")


def choose(key: str, name: str, known: Iterable[str]) -> str:
    """The known name that ``name`` means; case, dashes and underscores do not matter.

    Args:
        key: The configuration key, for the message.
        name: What the user wrote.
        known: The names to choose from.

    Raises:
        UserError: When no known name fits; it tells the nearest one and all others.
    """
    by_plain_name = {plain(candidate): candidate for candidate in known}
    if plain(name) in by_plain_name:
        return by_plain_name[plain(name)]
    nearest = difflib.get_close_matches(plain(name), by_plain_name, n=1, cutoff=0.5)
    hint = f" Did you mean {by_plain_name[nearest[0]]!r}?" if nearest else ""
    raise UserError(f"{key}: {name!r} is not known.{hint}\nKnown: {', '.join(by_plain_name.values())}.")
