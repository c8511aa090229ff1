"""The process of one trial: a command of the program, which stops when the sweep that started it is gone.

``python -m workbench.tune.trial PROGRAM COMMAND ...`` with a pipe as its standard input: the pipe ends with the sweep,
however that ends, and the trial then saves and stops as at Ctrl-C. Else two processes could train in one folder.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module
from importlib.util import find_spec

from workbench.main import main


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def start(argv: list[str]) -> int:
    """Run a program's command, such as ``["project", "fit", "--config", "FILE"]``; its exit code."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    program, *words = argv
    if find_spec(f"{program}.__main__"):
        import_module(f"{program}.__main__")  # it says what the program adds to the workbench
    return main(words)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
