"""Parser messages in a few lines: the cause first, where it stands, the nearest valid name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from workbench.arguments import values
from workbench.errors import UserError, find_user_error
from workbench.help import short_help

MOST_LINES = 10
_UNKNOWN = re.compile(r"(?:Option|does not accept option) '([^']+)'|unrecognized arguments: (\S+)")
_NO_ATTRIBUTE = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_NOISE = re.compile(r"^\W*(Subtypes:|Given value|Errors:|Expected a <class 'NoneType'>|Does not validate against any)")


class Parser(LightningArgumentParser):
    """An argument parser that raises UserError with a few lines, instead of printing its usage on 50.

    Attributes:
        words: The command line behind the command, kept to look up where a mistake stands.
        command: The command.
        callbacks: Keys of the callbacks, for the help.
    """

    words: list[str] = []  # noqa: RUF012
    command = ""
    callbacks: list[str] = []  # noqa: RUF012

    def format_help(self) -> str:
        if "--all" in self.words or not any(action.dest == "data.root" for action in self._actions):
            # Lists of every module and metric that could be named: hundreds of lines.
            return re.sub(r",\s+known\s+subclasses:[^)]*", "", super().format_help())
        return short_help(self, self.command, self.callbacks)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise find_user_error(ex) or UserError(explain(message, self, self.words)) from None


def explain(message: str, parser: Any, words: list[str]) -> str:
    """A message of jsonargparse, rewritten for a person.

    Args:
        message: What the parser said.
        parser: Its options are the valid names.
        words: The command line; the config files in it are searched for the mistake.
    """
    trees = _config_trees(words)
    if match := _UNKNOWN.search(message):
        return _unknown_key((match[1] or match[2]).lstrip("-").split("=")[0].rstrip("+"), parser, trees, words)
    if match := re.search(r"arguments are required: (.+)", message):
        names = [re.sub(r"^(fit|validate|test)\.", "", name.strip()) for name in match[1].split(",")]
        missing = [_missing_key(name, trees) for name in names]
        return f"Missing in the configuration: {', '.join(missing)}."
    lines = [line.rstrip() for line in message.splitlines() if line.strip() and not _NOISE.match(line)]
    given = re.search(r"Given value: (.{1,60})$", message, re.MULTILINE)
    key = re.match(r'Parser key "([^"]+)":?\s*(.*)', lines[0]) if lines else None
    if key:
        lines[0] = f"{_full_name(key[1], trees)}: {key[2]}".rstrip()
        if lines[0].endswith(":") and len(lines) > 1:
            lines[:2] = [f"{lines[0]} {lines[1].strip(' -')}"]
    text = re.sub(r"<class '([\w.]+)'>", r"\1", "\n".join(lines))
    text = re.sub(r"Type typing\.Callable.*? expects a function or a callable class: ", "", text)
    text = re.sub(r"Expected a (\w+)\. Got value: (.*)", r"expected a value of type \1, got \2", text)
    text = re.sub(r"\btyping\.", "", text)
    text = re.sub(r"Expected a Literal(\[.*?\])", r"expected one of \1", text)
    if given and "class_path" not in text:
        text += f"\nGiven was: {given[1]}"
    if match := _NO_ATTRIBUTE.search(text):
        near = get_close_matches(match[2], dir(import_module(match[1])), n=1)
        text += f"\nDid you mean {match[1]}.{near[0]}?" if near else ""
    return _short(text)


def _unknown_key(name: str, parser: Any, trees: dict[str, Any], words: list[str]) -> str:
    places = [f"{file}: {key}" for file, tree in trees.items() for key in _keys(tree) if f".{key}".endswith(f".{name}")]
    where = (
        places[0] if places else next((word.split("=")[0] for word in words if word.split("=")[0].endswith(name)), name)
    )
    # Keys of classes first: where a parser of one class alone looks, it knows their ends only.
    valid = [key for tree in trees.values() for key in _class_keys(tree)] + known_keys(parser)
    text = f"Unknown option: {where}"
    wanted = where.split(": ")[-1].lstrip("-")
    near = get_close_matches(wanted, valid, n=1, cutoff=0.75)
    if not near:
        leaves = {key.rsplit(".", 1)[-1]: key for key in reversed(valid)}
        near = [leaves[leaf] for leaf in get_close_matches(name.rsplit(".", 1)[-1], leaves, n=1, cutoff=0.6)]
    siblings = [key for key in valid if key.rpartition(".")[0] == wanted.rpartition(".")[0]]
    if near:
        text += f"\nDid you mean {near[0]}?"
    elif siblings:
        text += f"\nThere are: {', '.join(key.rpartition('.')[2] for key in siblings)}."
    return _short(text)


def known_keys(parser: Any) -> list[str]:
    """Every key that a parser, or one of its commands, takes."""
    keys = {action.dest for action in parser._actions if action.dest not in ("help", "subcommand")}
    commands = getattr(parser, "_subcommands_action", None)
    for sub in getattr(commands, "_name_parser_map", {}).values():
        keys |= set(known_keys(sub))
    return sorted(keys)


def _config_trees(words: list[str]) -> dict[str, Any]:
    trees = {}
    for config in values(words, "--config") + values(words, "-c"):
        try:
            text, name = (config, "configuration") if "\n" in config else (Path(config).read_text("utf-8"), config)
            trees[name] = yaml.safe_load(text)
        except (OSError, yaml.YAMLError):
            continue
    return trees


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")


def _class_keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Keys that the classes named in a configuration take."""
    if isinstance(tree, dict) and isinstance(path := tree.get("class_path"), str):
        module, _, name = path.rpartition(".")
        try:
            parameters = inspect.signature(getattr(import_module(module), name)).parameters
            yield from (
                f"{prefix}init_args.{parameter}"
                for parameter in parameters
                if parameter not in ("self", "params", "optimizer")
            )
        except (ImportError, AttributeError, ValueError, TypeError):
            pass
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from _class_keys(value, f"{prefix}{key}.")


def _missing_key(name: str, trees: dict[str, Any]) -> str:
    given = {key for tree in trees.values() for key in _keys(tree)}
    found = {key for tree in trees.values() for key in _class_keys(tree) if key.endswith(f".{name}")} - given
    return found.pop() if len(found) == 1 else name


def _full_name(key: str, trees: dict[str, Any]) -> str:
    """The whole dotted name of a key, which the parser names by its end alone; as it is where that is not unique."""
    found = {full for tree in trees.values() for full in _keys(tree) if full.endswith(f".{key}")}
    return found.pop() if len(found) == 1 else key


def _short(text: str) -> str:
    lines = [line if len(line) <= 300 else line[:297] + "..." for line in text.splitlines()]
    return "\n".join(lines[:MOST_LINES])
