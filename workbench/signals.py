"""Ctrl-C and SIGTERM: training stops between two steps and is saved first; everything else stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FORCE_AFTER = 2.0  # seconds: another Ctrl-C then means at once. Launchers forward the first, so it may come twice


class Stop(BaseException):
    """Ends the program because of a signal, and prints lines; a KeyboardInterrupt would kill the other processes."""

    def __init__(self, number: int, *lines: str) -> None:
        super().__init__(*lines)
        self.number = number
        self.exit_code = 128 + number  # as a shell reports it


class StopSignals:
    """Remembers that the run was asked to stop; signals belong to the process, so there is one, ``STOP``. While it
    ``waits``, the number in ``received`` is looked at between steps; else Stop is raised at once."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.received, self._when = 0, 0.0
        self.waits = self.requeued = False  # the latter: SLURM was asked to start the job again
        self._requeue: tuple[int, Callable[[int, Any], None]] | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle Ctrl-C and SIGTERM while the block runs."""
        self._reset()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.take()
            yield
        finally:
            self.waits = False
            for number, handler in before.items():
                _set(number, handler)

    def take(self) -> None:
        """Install the handlers (again: Lightning's own SIGTERM handler talks to the other processes, and may block)."""
        for number in (signal.SIGINT, signal.SIGTERM):
            _set(number, self._note)

    def take_requeue(self, number: int | None) -> None:
        """Let the signal at which Lightning requeues a SLURM job wait for the end of a step, too."""
        handler = signal.getsignal(number) if number else None
        if callable(handler) and handler != self._note:
            self._requeue = (int(number), handler)
            _set(number, self._note)

    def requeue(self) -> bool:
        """Let Lightning requeue the job, if this was the signal for it; whether it was."""
        if self._requeue is None or self.received != self._requeue[0]:
            return False
        self._requeue[1](self.received, None)
        self.requeued = True
        return True

    def _note(self, number: int, frame: Any) -> None:
        if self.received:
            if number != signal.SIGINT or time.monotonic() - self._when < FORCE_AFTER:
                return
            self.waits = False
        self.received, self._when = number, time.monotonic()
        if not self.waits:
            raise Stop(number)


def _set(number: int, handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


STOP = StopSignals()
