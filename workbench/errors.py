"""The one error that a user may see: what is wrong, where, and the way out."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its text without a trace and exits with 2.

    Args:
        message: At most ten lines, the cause first. Name the file or the configuration key, and say how to go on.
    """


def find_user_error(error: BaseException | None) -> UserError | None:
    """The UserError behind an error: a parser puts what a class's constructor raises into words of its own."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
