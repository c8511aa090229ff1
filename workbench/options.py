"""The command lines of the commands that are not Lightning's: read, and what is told of a mistake in them."""

from __future__ import annotations

import difflib
import re

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from workbench.errors import UserError


def read(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Read what was typed behind a command.

    Args:
        parser: Of the command, whose name its program's ends with; with ``exit_on_error=False``.
        arguments: What was typed.

    Raises:
        UserError: An unknown option, or a value that it cannot have.
    """
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        raise UserError(_explain(parser, arguments, str(error))) from error


def apart(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words of a command line without ``--data.KEY VALUE``, and those."""
    own: list[str] = []
    data: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("--data."):
            own.append(word)
            continue
        data.append(word)
        if "=" not in word:
            data += [value for value in [next(words, None)] if value is not None]
    return own, data


def _explain(parser: ArgumentParser, arguments: list[str], message: str) -> str:
    """What a parser without words of its own says of a mistake, in words for a person."""
    help = f"All options: {parser.prog} --help"
    known = sorted(option for option in parser._option_string_actions if option.startswith("--"))
    unknown = [argument.split("=")[0] for argument in arguments if argument.startswith("--")]
    unknown = [option for option in unknown if option not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{parser.prog.split()[-1]} has no option {unknown[0]}.{hint}\n{help}"
    message = re.sub(r'Parser key "(\w+)":\s*', r"--\1: ", message)
    message = re.sub(r"<class '(\w+)'>", r"\1", message).replace("a typing.Literal", "one of ")
    return "\n".join([line for line in message.splitlines() if line.strip()][:8]) + f"\n{help}"
