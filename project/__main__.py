"""``python -m project COMMAND ...``: finds the command, and turns a user's mistake into a few plain lines."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from workbench.errors import UserError, find_user_error
from workbench.launch import find_launch
from workbench.signals import STOP, Stop

# command -> (module, what it does). A module has main(argv) -> exit code, where
# argv starts with the command; it is imported when its command is given.
COMMANDS = {
    "fit": ("workbench.cli", "train a model, then test its best checkpoint"),
    "validate": ("workbench.cli", "score a checkpoint on the validation images"),
    "test": ("workbench.cli", "score a checkpoint on the test images"),
    "check": ("workbench.check", "look at data and model of a configuration before the first step"),
    "predict": ("project.inference.predict", "run a checkpoint over an image or a folder of images"),
    "ensemble": ("project.inference.ensemble", "average several checkpoints, or one with test-time augmentation"),
    "export": ("project.inference.export", "write a checkpoint as ONNX, for other programs"),
    "inspect": ("project.inference.inspect", "show a checkpoint's filters and features, and where it fails"),
}

HELP = """usage: python -m project COMMAND [options]

{commands}

  python -m project check --config configs/denoise.yaml      before the main job
  python -m project fit --config configs/denoise.yaml        the main job
  python -m project fit --name denoise --resume latest       go on with the newest run
  python -m project test --ckpt_path runs/denoise/latest/checkpoints/best.ckpt

COMMAND --help lists a command's options. --debug, or PROJECT_DEBUG=1, shows the whole trace of an error."""


def main(argv: list[str]) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 failed, 2 a mistake that the user can mend, 130 stopped by Ctrl-C,
        143 by SIGTERM.
    """
    # torchmetrics imports matplotlib, which looks through all fonts once and keeps the list, else in the user's home.
    os.environ.setdefault("MPLCONFIGDIR", str(Path(".cache", "matplotlib").absolute()))
    debug = "--debug" in argv or os.environ.get("PROJECT_DEBUG", "") not in ("", "0")
    argv = [word for word in argv if word != "--debug"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())))
        return 0
    as_before = warnings.formatwarning
    if not debug:
        warnings.formatwarning = _words_alone
    try:
        return _find(argv[0])(argv)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except Stop as stop:
        return _stopped(stop)
    except Exception as error:
        if debug:
            raise
        message = _explain(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = as_before


def _stopped(stop: Stop) -> int:
    launch = find_launch()
    if launch.rank == 0:
        print("\n".join(["Stopped.", *map(str, stop.args)]), file=sys.stderr)
    # The process that started this one takes anything but 0 for a failure, and then kills it and itself.
    return 0 if launch.inherited or STOP.requeued else stop.exit_code


def _words_alone(message: Warning | str, *_: object, **__: object) -> str:
    """A warning without the line of source that it comes from, which tells a user nothing."""
    return f"warning: {message}\n"


def _find(command: str) -> Callable[[list[str]], int]:
    if command not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(command, COMMANDS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"There is no command {command!r}.{hint}\nCommands: {', '.join(COMMANDS)}.")
    return import_module(COMMANDS[command][0]).main


def _explain(error: BaseException) -> str | None:
    """The user's part of an error; None for a fault of ours, whose trace is worth seeing."""
    if mistake := find_user_error(error):
        return str(mistake)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = error.filename or "while writing"
        return f"The disk is full ({where}).\nFree some space; --resume latest goes on from the last checkpoint."
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "The device is out of memory.\nTry a smaller --data.batch_size or --data.crop, "
            f"or --trainer.precision 16-mixed.\n{str(error).splitlines()[0]}"
        )
    if type(error).__name__ == "MisconfigurationException":  # Lightning's word for a user's mistake
        return str(error)[:1000]
    if type(error).__module__.startswith("wandb."):
        return (
            f"Weights & Biases: {str(error)[:500]}\n"
            "Without it, or without the network: --wandb off, or --wandb offline, which can be uploaded later."
        )
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
