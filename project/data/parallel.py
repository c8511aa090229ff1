"""Run one function over many files in threads, with a progress bar that short work never shows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # results a thread may be ahead of whoever takes them: decoded images must not pile up in memory
PATIENCE = 1.0  # seconds of work before a bar appears


def run_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, what: str, progress: bool = True
) -> Iterator[Result]:
    """The function's results in the order of the items.

    Threads, for Pillow lets go of the interpreter while it decodes: on two cores they were as fast as processes, and
    need neither pickling nor a guarded main module.

    Args:
        function: Called once for each item.
        items: What to call it with.
        workers: Threads; 0 or 1 works in the calling thread.
        what: The bar's label, such as "Reading images".
        progress: Whether a bar may be shown. It is shown on a terminal alone, on its error stream.
    """
    yield from counted(_results(function, items, workers), len(items), what, progress)


def counted(results: Iterator[Result], total: int, what: str, progress: bool = True) -> Iterator[Result]:
    """Pass an iterator's results on, with a progress bar once it has taken a second (see `run_parallel`)."""
    bar = task = None
    started = time.monotonic()
    try:
        for done, result in enumerate(results, start=1):
            yield result
            if bar is not None:
                bar.update(task, completed=done)
            elif progress and time.monotonic() - started > PATIENCE:
                bar = _progress_bar()
                task = bar.add_task(what, total=total, completed=done)
                bar.start()
    finally:
        if bar is not None:
            bar.stop()


def _results(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    if workers <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # after a failure or an interrupt
            pool.shutdown(cancel_futures=True)


def _progress_bar():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
