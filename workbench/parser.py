"""Command lines: arguments that need not be typed, errors with the cause first, help on one screen."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from workbench.checkpoint import other_version, read_checkpoint
from workbench.errors import UserError, did_you_mean, find_user_error
from workbench.main import PROGRAM, load
from workbench.run import find_run

MAX_LINES = 10
PROFILED_STEPS = 50  # where --profile has no number
RUN_KEYS = ("config", "name", "runs_dir", "resume", "ckpt_path", "wandb", "tensorboard", "seed_everything")
TRAINER_KEYS = (
    *("max_steps", "max_epochs", "max_time", "accelerator", "devices", "precision", "val_check_interval"),
    *("check_val_every_n_epoch", "limit_val_batches", "gradient_clip_val", "accumulate_grad_batches"),
    *("overfit_batches", "fast_dev_run"),
)
HELP_END = """Model (--model.init_args.KEY): the keys of the classes that the config names, such as
  --model.init_args.network.init_args.width 48       a network's argument
  --model.init_args.optimizer.init_args.lr 1e-3      an optimizer's argument
  python -m {name} {command} --model.help CLASS_PATH
  python -m {name} {command} --data.help CLASS_PATH

  python -m {name} {command} --config FILE --print_config      the whole resolved configuration
  python -m {name} {command} --help --all                      every option there is"""


def expand_args(argv: list[str]) -> list[str]:
    """Add to a command line what need not be typed; what is typed wins.

    That is the run's name, from the file name of the first config; the configuration of the run that is resumed, or of
    the checkpoint; and how many steps ``--profile`` times. Configs without a model are parts to compose, such as those
    for a machine.
    """
    command, words = argv[0], list(argv[1:])
    for i, word in enumerate(words):
        if word == "--profile" and words[i + 1 : i + 2] == ["true"]:
            del words[i + 1]
        if word == "--profile=true" or (word == "--profile" and (i + 1 == len(words) or words[i + 1].startswith("-"))):
            words[i] = f"--profile.steps={PROFILED_STEPS}"
    if any(word == "-h" or (word.startswith("--") and word.split("=")[0].endswith("help")) for word in words):
        return argv
    configs = values(words, "--config") + values(words, "-c")
    names, resume, checkpoint = (values(words, f"--{key}") for key in ("name", "resume", "ckpt_path"))
    models = [_names_a_model(config) for config in configs]  # of each: all of them have to be readable
    complete = any(models) or (configs and not resume and not checkpoint)
    added: list[str] = []
    if complete:
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
        there = ", ".join(sorted(map(str, Path("configs").glob("*.yaml"))))
        alternative = "" if command == "fit" else " or --ckpt_path FILE"
        raise UserError(f"'{command}' needs --config FILE{alternative}." + (f"\nThere are: {there}." if there else ""))
    return [command, *added, *words]


def values(words: list[str], option: str) -> list[str]:
    """What an option was given, in both spellings: ``--name X`` and ``--name=X``."""
    found = [words[i + 1] for i, word in enumerate(words[:-1]) if word == option]
    return found + [word.split("=", 1)[1] for word in words if word.startswith(option + "=")]


def _names_a_model(config: str) -> bool:
    """Whether a config, a file or YAML text, has a model; it must be readable in any case."""
    if "\n" in config:
        return True
    path = Path(config)
    if not path.is_file():
        there = sorted(map(str, path.parent.glob("*.y*ml")))
        hint = did_you_mean(config, there).strip() or (f"There are: {', '.join(there)}." if there else "")
        raise UserError(f"There is no config file {config}.\n{hint}".rstrip())
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = "\n".join(str(error).replace("<unicode string>", config).splitlines()[:6])
        raise UserError(f"{config} cannot be read as YAML:\n{reason}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{config} holds no keys and values, as a configuration does.")
    return "model" in tree


class Parser(LightningArgumentParser):
    """An argument parser that raises UserError with a few lines, instead of printing its usage on 50."""

    words: ClassVar[list[str]] = [""]  # the command, and the line that is searched for the place of a mistake

    def format_help(self) -> str:
        if "--all" in self.words or all(action.dest != "trainer.max_steps" for action in self._actions):
            # Without the lists of every module and metric that could be named: hundreds of lines.
            return re.sub(r",\s+known\s+subclasses:[^)]*", "", super().format_help())
        return _short_help(self, self.words[0])

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = explain(message, self, self.words)
        raise find_user_error(ex) or UserError(text + _of_another_version(text, self.words)) from None


def _of_another_version(text: str, words: list[str]) -> str:
    """What to do, if a mistake is in the configuration of a checkpoint or of a run to resume, and not in the words."""
    configs = values(words, "--config")
    typed = [word.split("=")[0].lstrip("-") for word in words if word.startswith("--") and "." in word]
    if not configs or any(option in text.split("\n")[0] for option in typed):
        return ""
    checkpoints = values(words, "--ckpt_path")
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
        text = explain(re.sub(r'Parser key "([\w.]+)"', r'Parser key "--\1"', str(error)), parser, arguments)
        raise UserError(f"{text}\nAll options: {parser.prog} --help") from None


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
_NOISE = re.compile(r"^\W*(Subtypes:|Given value|Errors:|Expected a <class 'NoneType'>|Does not validate against any)")


def explain(message: str, parser: Any, words: list[str]) -> str:
    """A parser's message, rewritten for a person; the config files among the words are searched for the mistake."""
    trees = _config_trees(words)
    if match := _UNKNOWN.search(message):
        return _unknown_key((match[1] or match[2]).lstrip("-").split("=")[0].rstrip("+"), parser, trees, words)
    if match := re.search(r"arguments are required: (.+)", message):
        names = [re.sub(r"^(fit|validate|test)\.", "", name.strip()) for name in match[1].split(",")]
        missing = [_only(_class_keys(trees), name) for name in names]
        return f"Missing in the configuration: {', '.join(missing)}."
    lines = [line.rstrip() for line in message.splitlines() if line.strip() and not _NOISE.match(line)]
    if lines and (key := re.match(r'Parser key "([^"]+)":?\s*(.*)', lines[0])):
        rest = key[2] or (lines.pop(1).strip(" -") if len(lines) > 1 else "")
        lines[0] = f"{_only((name for tree in trees.values() for name, _ in _walk(tree)), key[1])}: {rest}".rstrip()
    text = "\n".join(lines)
    for pattern, plain in (
        (r"<class '([\w.]+)'>", r"\1"),
        (r"Type typing\.Callable.*? expects a function or a callable class: ", ""),
        (r"Expected a (\w+)\. Got value: (.*)", r"expected a value of type \1, got \2"),
        (r"\btyping\.", ""),
        (r"Expected a Literal(\[.*?\])", r"expected one of \1"),
    ):
        text = re.sub(pattern, plain, text)
    given = re.search(r"Given value: (.{1,60})$", message, re.MULTILINE)
    if given and "class_path" not in text:
        text += f"\nGiven was: {given[1]}"
    if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        text += "\n" + did_you_mean(match[2], dir(import_module(match[1])), prefix=f"{match[1]}.").strip()
    return _shorten(text)


def _unknown_key(name: str, parser: Any, trees: dict[str, Any], words: list[str]) -> str:
    places = [f"{file}: {key}" for file, tree in trees.items() for key, _ in _walk(tree)]
    places += [word.split("=")[0] for word in words if word.startswith("--")]
    place = next((place for place in places if re.search(rf"(^|[-. ]){re.escape(name)}$", place)), name)
    wanted = place.split(": ")[-1].lstrip("-").replace("init_args.", "")
    # Keys of classes first: a parser of a class alone knows only their ends.
    valid = {key.replace("init_args.", ""): key for key in [*known_keys(parser), *_class_keys(trees)]}
    leaves = {key.rpartition(".")[2]: key for key in valid}
    near = get_close_matches(wanted, valid, n=1, cutoff=0.75)
    near += [leaves[leaf] for leaf in get_close_matches(wanted.rpartition(".")[2], leaves, n=1, cutoff=0.6)]
    siblings = [key.rpartition(".")[2] for key in valid if key.rpartition(".")[0] == wanted.rpartition(".")[0]]
    hint = f"Did you mean {valid[near[0]]}?" if near else f"There are: {', '.join(siblings)}." if siblings else ""
    return _shorten(f"Unknown option: {place}\n{hint}")


def known_keys(parser: Any) -> list[str]:
    """Every key that a parser, or one of its commands, takes."""
    keys = {action.dest for action in parser._actions if action.dest not in ("help", "subcommand")}
    commands = getattr(parser, "_subcommands_action", None)
    for sub in getattr(commands, "_name_parser_map", {}).values():
        keys |= set(known_keys(sub))
    return sorted(keys)


def _config_trees(words: list[str]) -> dict[str, Any]:
    """The configs of a command line by their file, read as far as they can be."""
    trees = {}
    for config in values(words, "--config") + values(words, "-c"):
        with suppress(OSError, yaml.YAMLError):
            text, name = (config, "configuration") if "\n" in config else (Path(config).read_text("utf-8"), config)
            trees[name] = yaml.safe_load(text)
    return trees


def _walk(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a tree, with what it holds."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield f"{prefix}{key}", value
        yield from _walk(value, f"{prefix}{key}.")


def _class_keys(trees: dict[str, Any]) -> Iterator[str]:
    """Arguments of the classes named in configurations, and of the default data module."""
    nodes = [node for tree in trees.values() for node in _walk(tree)]
    classes = {key: value["class_path"] for key, value in nodes if isinstance(value, dict) and "class_path" in value}
    if PROGRAM.data and "data" not in classes:
        yield from (f"data.{name}" for name in _parameters(PROGRAM.data))
    for key, class_path in classes.items():
        yield from (f"{key}.init_args.{name}" for name in _parameters(class_path))


def _parameters(class_path: str) -> list[str]:
    try:
        parameters = inspect.signature(load(class_path)).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        return []
    return [name for name in parameters if name not in ("self", "params", "optimizer")]


def _only(keys: Iterable[str], end: str) -> str:
    """The key with that end; the end itself where it is not unique."""
    found = {key for key in keys if f".{key}".endswith(f".{end}")}
    return found.pop() if len(found) == 1 else end


def _shorten(text: str) -> str:
    return "\n".join(line if len(line) <= 300 else line[:297] + "..." for line in text.splitlines()[:MAX_LINES])


def _short_help(parser: Any, command: str) -> str:
    """The options of a command that people change."""
    actions = {a.dest: a for a in parser._actions if a.dest == "config" or a.default != "==SUPPRESS=="}
    groups = {"Run": [actions[key] for key in RUN_KEYS if key in actions]}
    if PROGRAM.data:
        data = ArgumentParser()
        data.add_class_arguments(load(PROGRAM.data), "data", fail_untyped=False)
        groups[f"Data ({PROGRAM.data.rpartition('.')[2]})"] = [a for a in data._actions if a.dest.startswith("data.")]
    groups["Trainer (Lightning's own)"] = [actions[f"trainer.{key}"] for key in TRAINER_KEYS]
    groups["Callbacks"] = [a for key, a in actions.items() if key.split(".")[0] in parser.callback_keys and "." in key]
    short = argparse.ArgumentParser(
        usage=f"python -m {PROGRAM.name} {command} --config FILE [--config FILE ...] [--key value ...]",
        epilog=HELP_END.format(name=PROGRAM.name, command=command),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=120),
        add_help=False,
    )
    for title, entries in groups.items():
        group = short.add_argument_group(title)
        for action in entries:
            group.add_argument(f"--{action.dest}", metavar="", help=_help_text(action).replace("%", "%%"))
    return short.format_help()


def _help_text(action: Any) -> str:
    text = " ".join((action.help or "").replace("%%", "%").split())
    text = text.split("(type:")[0].strip().removesuffix("Default: ``None``.").strip()
    if action.dest.split(".")[0] in ("ckpt_path", "trainer"):
        text = text.split(". ")[0].rstrip(".") + "."  # Lightning's own texts run on
    has_default = isinstance(action.default, int | float | str | bool) and action.default != "==SUPPRESS=="
    return f"{text} [{action.default}]" if has_default else text
