"""The process of one trial: a command of the program, which stops when the sweep that started it is gone.

``python -m workbench.tune.trial PROGRAM COMMAND ...`` with a pipe as its standard input: the pipe ends with the sweep,
however that ends, and the trial then saves and stops as at Ctrl-C. One that starts in the same folder waits until then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from workbench.main import main
from workbench.parser import values

LOCK: list[int] = []  # open as long as the process lives


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_others(folder: Path) -> None:
    """Wait until no other trial's process runs in a folder, on systems with locks that end with a process."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return
    folder.mkdir(parents=True, exist_ok=True)
    LOCK.append(os.open(folder, os.O_RDONLY))
    fcntl.flock(LOCK[0], fcntl.LOCK_EX)


def start(argv: list[str]) -> int:
    """Run a program's command, such as ``["project", "fit", "--config", "FILE"]``; its exit code."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    program, *words = argv
    _wait_for_others(Path(values(words, "--runs_dir")[-1], values(words, "--name")[-1]))
    if find_spec(f"{program}.__main__"):
        import_module(f"{program}.__main__")  # it says what the program adds to the workbench
    return main(words)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
