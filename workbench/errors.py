"""The one error that a user may see, and names chosen among known ones."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can fix; the command line prints its text without a trace and exits with 2. It has at
    most ten lines, the cause first, and names the file or the configuration key, and the way out."""


def find_user_error(error: BaseException | None) -> UserError | None:
    """The UserError behind an error: parsers wrap what a class's constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def one_line(error: Exception, length: int = 300) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:length]


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6, prefix: str = "") -> str:
    """``" Did you mean X?"``, or nothing where no known name is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def choose(key: str, name: str, known: Iterable[str]) -> str:
    """The name, the value of a configuration key, if it is known, else a UserError with the nearest one."""
    names = {candidate.lower(): candidate for candidate in known}
    if name not in names.values():
        nearest = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
        hint = f" Did you mean {names[nearest[0]]!r}?" if nearest else ""
        raise UserError(f"{key}: {name!r} is not known.{hint}\nKnown: {', '.join(names.values())}.")
    return name
