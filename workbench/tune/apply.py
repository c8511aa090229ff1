"""Writes a number into a YAML configuration, in its place, so that comments and layout stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import UserError

RATE_NAMES = ("max_lr", "lr", "learning_rate", "base_lr")  # a schedule's highest rate wins over an optimizer's own


def yaml_number(value: float) -> str:
    """As YAML 1.1 reads a float, which needs the point: ``2.0e-3``."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def rate_key(config: Mapping[str, Any], network: str, value: float, alone: bool) -> str | None:
    """The key of a resolved configuration that holds the learning rate ``value`` of a network's optimizer.

    Among several optimizers only a key that names the network (``generator_optimizer``, ``lr_generator``) is its own.
    None where no key, or more than one, may be it.
    """
    found = [
        key
        for key, given in _leaves(config.get("model") or {}, "model.")
        if isinstance(given, int | float) and isclose(given, value, rel_tol=1e-6) and _is_rate(key)
    ]
    if not alone:
        found = [key for key in found if _names(key, network)]
    for name in RATE_NAMES:
        if len(named := [key for key in found if key.endswith(f".{name}")]) == 1:
            return named[0]
    return found[0] if len(found) == 1 else None


def _is_rate(key: str) -> bool:
    words = key.rpartition(".")[2].lower().split("_")
    return "lr" in words or words[-2:] == ["learning", "rate"]


def _names(key: str, network: str) -> bool:
    """Whether a word of the key is the network's name, or its first letter, as in ``lr_g``."""
    words = {word for part in key.lower().split(".")[2:] for word in part.split("_")}
    plain = network.lower().removeprefix("net_").removeprefix("net")
    return network.lower() in key.lower().split(".") or bool({network.lower(), plain, plain[:1]} & words)


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def write_values(path: Path, values: Mapping[str, float]) -> dict[str, str]:
    """Replace numbers in a YAML file by their dotted keys, all or none; returns what stood there before.

    Raises:
        UserError: The file cannot be read, or lacks a key; the message shows what to add.
    """
    try:
        text = path.read_bytes().decode("utf-8")  # with its own line ends
        root = yaml.compose(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--apply: {path} cannot be read as YAML: {str(error).splitlines()[0]}") from None
    nodes = {key: _find(root, key.split(".")) for key in values}
    if missing := [key for key, node in nodes.items() if node is None]:
        lines = "\n".join(_nested(key, yaml_number(values[key])) for key in missing)
        raise UserError(f"--apply: {path} is unchanged, since it does not hold the key. Add to it:\n{lines}")
    for key, node in sorted(nodes.items(), key=lambda item: -item[1].start_mark.index):  # from the end: indices stay
        text = text[: node.start_mark.index] + yaml_number(values[key]) + text[node.end_mark.index :]
    path.write_bytes(text.encode("utf-8"))
    return {key: node.value for key, node in nodes.items()}


def _nested(key: str, value: str) -> str:
    """``a: {b: value}`` for the key ``a.b``."""
    return ": {".join(key.split(".")) + f": {value}" + "}" * key.count(".")


def _find(node: yaml.Node | None, path: list[str]) -> yaml.ScalarNode | None:
    """The scalar at a path of keys; keys may themselves be dotted, as ``model.init_args.lr: 1e-3``."""
    if not path:
        return node if isinstance(node, yaml.ScalarNode) else None
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            words = key.value.split(".")
            if path[: len(words)] == words and (found := _find(value, path[len(words) :])) is not None:
                return found
    return None
