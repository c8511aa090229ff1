"""The one error that a user may see, and names chosen among known ones."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can fix; the command line prints its text without a trace and exits with 2.

    The message has at most ten lines, the cause first. It names the file or the configuration key, and the way out.
    """


def find_user_error(error: BaseException | None) -> UserError | None:
    """The UserError behind an error: parsers wrap what a class's constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def one_line(error: Exception, length: int = 300) -> str:
    """An error's text on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:length]


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6, prefix: str = "") -> str:
    """``" Did you mean X?"``, or nothing where no known name is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def plain(name: str) -> str:
    """``"Leaky-ReLU"``, ``"leaky_relu"`` and ``"LeakyReLU"`` are one name."""
    return str(name).lower().replace("_", "").replace("-", "")


def choose(key: str, name: str, known: Iterable[str]) -> str:
    """The known name that ``name`` means, as the value of a configuration key; case, - and _ do not matter.

    UserError with the nearest and all others where none fits.
    """
    by_plain_name = {plain(candidate): candidate for candidate in known}
    if plain(name) in by_plain_name:
        return by_plain_name[plain(name)]
    nearest = get_close_matches(plain(name), by_plain_name, n=1, cutoff=0.5)
    hint = f" Did you mean {by_plain_name[nearest[0]]!r}?" if nearest else ""
    raise UserError(f"{key}: {name!r} is not known.{hint}\nKnown: {', '.join(by_plain_name.values())}.")
