"""The words of a command line, completed with what a checkpoint, a run or a config's file name already says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import UserError
from workbench.run import find_run

PROFILED = 50
"""Steps that ``--profile`` times where no number is given."""


def complete(argv: list[str]) -> list[str]:
    """Add to a command line what need not be typed.

    - the run's name: the file name of the first config;
    - ``fit --resume``: the configuration of that run;
    - ``--profile`` alone: how many steps to time;
    - ``test`` and ``validate`` with ``--ckpt_path``: the configuration that travels in the checkpoint, without its
      trainer part, since the machine may be another.

    What is typed wins over what is added. Configs without a model are parts to compose, such as those for a machine.

    Raises:
        UserError: If a file is missing, or there is nothing to take a configuration from.
    """
    command, words = argv[0], list(argv[1:])
    for place, word in enumerate(words):
        if word == "--profile" and (place + 1 == len(words) or words[place + 1].startswith("-")):
            words[place] = f"--profile.steps={PROFILED}"
    if any(word == "-h" or (word.startswith("--") and word.split("=")[0].endswith("help")) for word in words):
        return argv
    configs = values(words, "--config") + values(words, "-c")
    resume, checkpoint = values(words, "--resume"), values(words, "--ckpt_path")
    described = [_check(config) for config in configs]
    whole = any(described) or (configs and not resume and not checkpoint)
    added: list[str] = []
    if not values(words, "--name") and whole:
        added += ["--name", Path(configs[0]).stem]
    if whole:
        pass
    elif command == "fit" and resume:
        name = values(words, "--name") or [None]
        if name[-1] is None:
            raise UserError("--resume needs to know which run: add --name NAME, or the same --config as before.")
        run = find_run((values(words, "--runs_dir") or ["runs"])[-1], name[-1], resume[-1])
        added += ["--config", str(run.folder / "config.yaml")]
    elif checkpoint:
        added += ["--config", _config_of(checkpoint[-1], keep_trainer=command == "fit")]
    else:
        there = sorted(map(str, Path("configs").glob("*.yaml")))
        raise UserError(
            f"'{command}' needs --config FILE"
            + ("" if command == "fit" else " or --ckpt_path FILE")
            + "."
            + (f"\nThere are: {', '.join(there)}." if there else "")
        )
    return [command, *added, *words]


def values(words: list[str], option: str) -> list[str]:
    """What was given for an option, in both spellings: ``--name X`` and ``--name=X``."""
    found = [words[i + 1] for i, word in enumerate(words[:-1]) if word == option]
    return found + [word.split("=", 1)[1] for word in words if word.startswith(option + "=")]


def differences(saved: dict[str, Any], now: dict[str, Any], sections: tuple[str, ...] = ("model", "data")) -> list[str]:
    """Keys whose values differ between two configurations, as ``data.batch_size 16 -> 8``."""
    before, after = ({key: value for key, value in _leaves(c) if key.split(".")[0] in sections} for c in (saved, now))
    return [
        f"{key} {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), tree


def _config_of(path: str, keep_trainer: bool) -> str:
    from workbench.checkpoint import read_checkpoint

    config = read_checkpoint(path).config
    if not keep_trainer:
        config.pop("trainer", None)
    return yaml.safe_dump(config, sort_keys=False)


def _check(config: str) -> bool:
    """Whether it describes a model; it must be readable in any case."""
    if "\n" in config:  # the text itself
        return True
    if not Path(config).is_file():
        raise _no_such_file(config)
    try:
        tree = yaml.safe_load(Path(config).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = "\n".join(str(error).replace("<unicode string>", config).splitlines()[:6])
        raise UserError(f"{config} cannot be read as YAML:\n{reason}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{config} holds no keys and values; configs/denoise.yaml shows how a configuration looks.")
    return "model" in tree


def _no_such_file(config: str) -> UserError:
    from difflib import get_close_matches

    folder = Path(config).parent
    there = [str(path) for path in folder.glob("*.y*ml")] if folder.is_dir() else []
    near = get_close_matches(config, there, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(sorted(there))}." if there else ""
    return UserError(f"There is no file {config} to take the configuration from.\n{hint}".rstrip())
