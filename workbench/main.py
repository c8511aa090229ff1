"""``python -m NAME COMMAND ...``: finds the command, and turns a user's mistake into a few plain lines."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from workbench.errors import UserError, did_you_mean, find_user_error
from workbench.signals import STOP, Stop

# Command -> (module, what it does). A module has main(argv) -> exit code, where argv starts with the command.
COMMANDS = {
    "fit": ("workbench.cli", "train a model, then test its best checkpoint"),
    "validate": ("workbench.cli", "evaluate a checkpoint on the validation split"),
    "test": ("workbench.cli", "evaluate a checkpoint on the test split"),
    "sweep": ("workbench.tune.sweep", "search hyper-parameters: many runs of a configuration"),
    "sweep-report": ("workbench.tune.report", "tables and charts of a sweep, at any time"),
    "check": ("workbench.check", "check data and model of a configuration before the first step"),
    "tune-lr": ("workbench.tune.lr", "suggest a learning rate: the range test"),
    "tune-batch": ("workbench.tune.batch", "find the batch size that the device is fast at, and the largest"),
}

HELP = """usage: python -m {name} COMMAND [options]

{commands}

  python -m {name} fit --name NAME --resume latest      resume the newest run of that name
  python -m {name} test --ckpt_path runs/NAME/latest/checkpoints/best.ckpt

COMMAND --help lists a command's options. --debug shows the whole trace of an error."""


@dataclass
class Program:
    """What a project adds to the workbench. Class paths are strings, imported where they are used."""

    name: str = "workbench"  # it is run by `python -m NAME`
    commands: dict[str, tuple[str, str]] = field(default_factory=dict)  # as COMMANDS
    data: str | None = None  # data module of configurations that name none
    callbacks: dict[str, str] = field(default_factory=dict)  # command-line key -> class path
    headings: dict[str, tuple[str, int]] = field(default_factory=dict)  # metric -> heading and decimals, in order
    # (run's folder, checkpoint) -> lines by their label, which follow the results of a training run
    next_steps: Callable[[Path, Path, Any], dict[str, Any]] = lambda folder, checkpoint, model: {}


PROGRAM = Program()  # the one that runs


def load(path: str) -> Any:
    """The class or function with this path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def main(argv: list[str]) -> int:
    """Run one command; returns 0 done, 1 failed, 2 a mistake that the user can fix, 130 Ctrl-C, 143 SIGTERM."""
    # torchmetrics imports matplotlib, which scans all fonts once and caches them, by default in the user's home.
    os.environ.setdefault("MPLCONFIGDIR", str(Path(".cache", "matplotlib").absolute()))
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    commands = COMMANDS | PROGRAM.commands
    if not argv or argv[0] in ("-h", "--help", "help"):
        lines = "\n".join(f"  {name:<12} {text}" for name, (_, text) in commands.items())
        print(HELP.format(name=PROGRAM.name, commands=lines))
        return 0
    try:
        if argv[0] not in commands:
            hint = did_you_mean(argv[0], commands, cutoff=0.4)
            raise UserError(f"There is no command {argv[0]!r}.{hint}\nCommands: {', '.join(commands)}.")
        return import_module(commands[argv[0]][0]).main(argv)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except Stop as stop:
        from workbench.distributed import find_launch  # Lightning is imported late: help and mistakes come at once

        launch = find_launch()
        if launch.rank == 0:
            print("\n".join(["Stopped.", *map(str, stop.args)]), file=sys.stderr)
        # The parent process takes anything but 0 for a failure, and then kills this process and itself.
        return 0 if launch.inherited or STOP.requeued else stop.exit_code
    except Exception as error:
        message = None if debug else _message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2


def _message(error: BaseException) -> str | None:
    """What a user reads of an error; None for a bug of ours, whose trace is worth seeing."""
    if mistake := find_user_error(error):
        return str(mistake)
    kind = type(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        return f"{error.strerror}: {error.filename}\nFree some space or use another --runs_dir; then --resume latest."
    if kind.__name__ == "OutOfMemoryError":
        smaller = "Use a smaller --data.batch_size, smaller samples, or --trainer.precision 16-mixed."
        return f"The device is out of memory.\n{smaller}\n{str(error).splitlines()[0]}"
    if kind.__name__ == "MisconfigurationException":  # Lightning's word for a user's mistake
        return str(error)[:1000]
    if kind.__module__.startswith("wandb."):
        return f"Weights & Biases: {str(error)[:500]}\nUse --wandb off, or --wandb offline and upload the run later."
    return None
