"""Command lines: arguments that need not be typed, errors with the cause first, help on one screen."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from workbench.checkpoint import other_version, read_checkpoint
from workbench.errors import UserError, did_you_mean, find_user_error
from workbench.main import PROGRAM, load
from workbench.run import find_run

MAX_LINES = 10
BEST = "runs/NAME/latest/checkpoints/best.ckpt"
EXAMPLES = {"ckpt_path": BEST, "ckpts": BEST, "input": "FOLDER", "output": "FOLDER"}
HELP = """usage: python -m {name} {command} --config FILE [--config FILE ...] [--key value ...]
{options}

Model (--model.init_args.KEY): the keys of the classes that the config names, such as
  --model.init_args.network.init_args.width 48       a network's argument
  --model.init_args.optimizer.init_args.lr 1e-3      an optimizer's argument
  python -m {name} {command} --model.help CLASS_PATH
  python -m {name} {command} --data.help CLASS_PATH

  python -m {name} {command} --config FILE --print_config      the whole resolved configuration
"""


def expand_args(argv: list[str]) -> list[str]:
    """Add to a command line what need not be typed: the run's name, which is the file name of the first config; the
    configuration of the run that is resumed, or of the checkpoint; and that ``--profile`` times 50 steps."""
    command, *words = ["--profile.steps=50" if word == "--profile" else word for word in argv]
    if any(word == "-h" or (word.startswith("--") and word.split("=")[0].endswith("help")) for word in words):
        return argv
    configs = values(words, "--config") + values(words, "-c")
    names, resume, checkpoint = (values(words, f"--{key}") for key in ("name", "resume", "ckpt_path"))
    # Of each config, so that all of them are readable; those without a model are parts to compose, as for a machine.
    models = ["model" in _read_config(config) for config in configs]
    if any(models) or (configs and not resume and not checkpoint):
        added = [] if names else ["--name", Path(configs[0]).stem]
    elif command == "fit" and resume:
        if not names:
            raise UserError("--resume needs to know which run: add --name NAME, or the same --config as before.")
        run = find_run((values(words, "--runs_dir") or ["runs"])[-1], names[-1], resume[-1])
        added = ["--config", str((run.folder / "config.yaml").absolute())]
    elif checkpoint:
        found = read_checkpoint(checkpoint[-1])
        config = dict(found.config)
        if found.data_class is not None:
            config["data"] = {"class_path": found.data_class, "init_args": config["data"]}
        if command != "fit":  # where the machine may be another
            config.pop("trainer", None)
        added = ["--config", yaml.safe_dump(config, sort_keys=False)]
    else:
        option, example = "--ckpt_path", BEST
        if command not in ("test", "validate"):
            option, example = "--config", next(iter(sorted(map(str, Path("configs").glob("*.yaml")))), "FILE")
        raise UserError(f"{option} FILE is missing. Example: python -m {PROGRAM.name} {command} {option} {example}")
    return [command, *added, *words]


def values(words: Sequence[str], option: str) -> list[str]:
    """What an option was given, in both spellings: ``--name X`` and ``--name=X``."""
    found = [words[i + 1] for i, word in enumerate(words[:-1]) if word == option]
    return found + [word.split("=", 1)[1] for word in words if word.startswith(option + "=")]


def _read_config(config: str) -> dict[str, Any]:
    """A config, a file or YAML text; UserError where it cannot be read."""
    if "\n" in config:
        return yaml.safe_load(config)
    path = Path(config)
    if not path.is_file():
        hint = did_you_mean(config, map(str, path.parent.glob("*.y*ml")))
        raise UserError(f"There is no config file {config}.{hint}")
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = "\n".join(str(error).replace("<unicode string>", config).splitlines()[:6])
        raise UserError(f"{config} cannot be read as YAML:\n{reason}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{config} holds no keys and values, as a configuration does.")
    return tree


class Parser(LightningArgumentParser):
    """An argument parser that raises UserError with a few lines, instead of printing its usage on 50."""

    # The command and what follows it: where the place of a mistake is looked for, by parsers of classes as well.
    words: Sequence[str] = ("",)

    @classmethod
    def of(cls, words: Sequence[str]) -> type[Parser]:
        """A parser class for these words alone; jsonargparse makes further parsers of the same class for classes."""
        return type("Parser", (cls,), {"words": words})

    def format_help(self) -> str:
        if any(action.dest == "trainer.max_steps" for action in self._actions):
            return _short_help(self, self.words[0])
        # Without the lists of every module and metric that could be named: hundreds of lines.
        return re.sub(r",\s+known\s+subclasses:[^)]*", "", super().format_help())

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = explain(message, self, self.words)
        raise find_user_error(ex) or UserError(text + _of_another_version(text, self.words)) from None


def _of_another_version(text: str, words: Sequence[str]) -> str:
    """What to do, if a mistake is in the configuration of a checkpoint or of a run to resume, and not in the words."""
    configs, checkpoints = values(words, "--config"), values(words, "--ckpt_path")
    typed = [word.split("=")[0].lstrip("-") for word in words if word.startswith("--") and "." in word]
    if not configs or any(option in text.split("\n")[0] for option in typed):
        return ""
    if checkpoints and "\n" in configs[0]:
        return f"\n{other_version(checkpoints[-1])}"
    if values(words, "--resume") and Path(configs[0]).name == "config.yaml":
        return f"\n{other_version(Path(configs[0]).parent / 'checkpoints' / 'last.ckpt')}"
    return ""


def read_options(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Parse the options of a command that is not Lightning's; its parser has ``exit_on_error=False``."""
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        text = re.sub(r'Parser key "([\w.]+)"', r'Parser key "--\1"', str(error))
        raise UserError(f"{explain(text, parser, arguments)}\nAll options: {parser.prog} --help") from None


def split_options(parser: ArgumentParser, arguments: list[str]) -> tuple[Namespace, list[str]]:
    """The options that a parser knows, of a command line whose other words are ``fit``'s; and those words."""
    known = {option for action in parser._actions for option in action.option_strings}
    own, others = [], []
    words = iter(arguments)
    for word in words:
        if word.split("=", 1)[0] not in known:
            others.append(word)
        else:
            own += [word] if "=" in word or word in ("-h", "--help") else [word, *islice(words, 1)]
    return read_options(parser, own), others


def split_data_args(arguments: list[str]) -> tuple[list[str], list[str]]:
    """A command line without ``--data.KEY VALUE``, and those words."""
    own, data = [], []
    words = iter(arguments)
    for word in words:
        if not word.startswith("--data."):
            own.append(word)
        else:
            data += [word] if "=" in word else [word, *islice(words, 1)]
    return own, data


_UNKNOWN = re.compile(r"(?:Option|does not accept option) '([^']+)'|unrecognized arguments: (\S+)")
_NOISE = re.compile(r"^\W*(Subtypes:|Errors:|Given value type|Expected a <class 'NoneType'>|Does not validate against)")


def explain(message: str, parser: ArgumentParser, words: Sequence[str]) -> str:
    """A parser's message, rewritten for a person; the config files among the words are searched for the mistake."""
    configs = values(words, "--config") + values(words, "-c")
    trees = {"configuration" if "\n" in config else config: _read_config(config) for config in configs}
    if match := _UNKNOWN.search(message):
        text = _unknown_key((match[1] or match[2]).lstrip("-").split("=")[0].rstrip("+"), parser, trees, words)
    elif match := re.search(r"arguments are required: (.+)", message):
        names = [re.sub(r"^(fit|validate|test)\.", "", name.strip()) for name in match[1].split(",")]
        if trees:
            text = f"Missing in the configuration: {', '.join(_full_key(_class_keys(trees), name) for name in names)}."
        else:
            example = " ".join(f"--{name} {EXAMPLES.get(name, 'FILE')}" for name in names)
            missing = ", ".join(f"--{name} FILE" for name in names)
            text = f"{missing} is missing. Example: {parser.prog} {example}"
    else:
        text = _wrong_value(message, trees)
    lines = [line if len(line) <= 300 else line[:297] + "..." for line in text.splitlines()]
    return "\n".join(lines[:MAX_LINES])


def _wrong_value(message: str, trees: dict[str, Any]) -> str:
    lines = [line.rstrip() for line in message.splitlines() if line.strip() and not _NOISE.match(line)]
    if lines and (key := re.match(r'Parser key "([^"]+)":?\s*(.*)', lines[0])):
        written = (name for tree in trees.values() for name, _ in walk(tree))
        cause = key[2] or (lines.pop(1).strip(" -") if len(lines) > 1 else "")
        lines[0] = f"{_full_key(written, key[1])}: {cause}"
    text = re.sub(r"Expected a <class '([\w.]+)'>", r"expected \1", "\n".join(lines))
    text = re.sub(r"Expected a typing\.Literal(\[.*?\])", r"expected one of \1", text)
    if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        text += "\n" + did_you_mean(match[2], dir(import_module(match[1])), prefix=f"{match[1]}.").strip()
    return text


def _unknown_key(name: str, parser: ArgumentParser, trees: dict[str, Any], words: Sequence[str]) -> str:
    places = [f"{file}: {key}" for file, tree in trees.items() for key, _ in walk(tree)]
    places += [word.split("=")[0] for word in words if word.startswith("--")]
    place = next((place for place in places if re.search(rf"(^|[-. ]){re.escape(name)}$", place)), name)
    wanted = place.split(": ")[-1].lstrip("-").replace("init_args.", "")
    # Keys of classes first: a parser of a class alone knows only their ends.
    valid = {key.replace("init_args.", ""): key for key in [*known_keys(parser), *_class_keys(trees)]}
    leaves = {key.rpartition(".")[2]: key for key in valid}
    near = get_close_matches(wanted, valid, n=1, cutoff=0.75)
    near += [leaves[leaf] for leaf in get_close_matches(wanted.rpartition(".")[2], leaves, n=1)]
    return f"Unknown option: {place}" + (f"\nDid you mean {valid[near[0]]}?" if near else "")


def known_keys(parser: ArgumentParser) -> list[str]:
    """Every key that a parser, or one of its commands, takes."""
    keys = {action.dest for action in parser._actions if action.dest not in ("help", "subcommand")}
    commands = getattr(parser, "_subcommands_action", None)
    for sub in getattr(commands, "_name_parser_map", {}).values():
        keys |= set(known_keys(sub))
    return sorted(keys)


def walk(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a tree, with what it holds."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield f"{prefix}{key}", value
        yield from walk(value, f"{prefix}{key}.")


def _class_keys(trees: dict[str, Any]) -> Iterator[str]:
    """Arguments of the classes named in configurations, and of the default data module."""
    nodes = [(key, value) for tree in trees.values() for key, value in walk(tree) if isinstance(value, dict)]
    classes = {f"{key}.init_args": value["class_path"] for key, value in nodes if "class_path" in value}
    if PROGRAM.data and "data.init_args" not in classes:
        classes["data"] = PROGRAM.data
    for key, class_path in classes.items():
        with suppress(ImportError, AttributeError, ValueError, TypeError):
            names = inspect.signature(load(class_path)).parameters
            yield from (f"{key}.{name}" for name in names if name not in ("params", "optimizer"))


def _full_key(keys: Iterator[str], end: str) -> str:
    """The key with that end; the end itself where it is not unique."""
    found = {key for key in keys if f".{key}".endswith(f".{end}")}
    return found.pop() if len(found) == 1 else end


def _short_help(parser: Parser, command: str) -> str:
    """Each option in a line or two: its key, the first sentence of its text, its default."""
    data = ArgumentParser()
    if PROGRAM.data:
        data.add_class_arguments(load(PROGRAM.data), "data", fail_untyped=False)
    lines, section = [], ""
    for action in sorted([*parser._actions, *data._actions], key=lambda action: "." in action.dest):
        text = " ".join((action.help or "").split())
        if action.dest.endswith("help") or (text.startswith("Path to a configuration") and action.dest != "config"):
            continue
        if "." in action.dest and action.dest.partition(".")[0] != section:
            section = action.dest.partition(".")[0]
            lines.append("")
        text = re.split(r"\(type:|Default:|\. ", text)[0].strip()
        if isinstance(action.default, int | float | str) and action.default != "==SUPPRESS==":
            text += f" [{action.default}]"
        lines.append(textwrap.fill(f"  --{action.dest:<32}  {text}", 120, subsequent_indent=" " * 38))
    return HELP.format(name=PROGRAM.name, command=command, options="\n".join(lines))
