"""Work on many files in threads, with a progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 8  # results per thread that may wait to be taken: decoded images must not pile up in memory


def run_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, title: str
) -> Iterator[Result]:
    """The function's results in the order of the items; 0 or 1 workers run in the calling thread.

    Threads, for Pillow releases the interpreter lock while it decodes: on two cores they were as fast as processes.
    """
    if workers <= 1:
        yield from with_progress(map(function, items), len(items), title)
        return
    with ThreadPoolExecutor(workers) as pool:
        chunks = (items[start : start + AHEAD * workers] for start in range(0, len(items), AHEAD * workers))
        try:
            yield from with_progress(chain.from_iterable(pool.map(function, one) for one in chunks), len(items), title)
        finally:  # after a failure or an interrupt
            pool.shutdown(cancel_futures=True)


def with_progress(results: Iterable[Result], total: int, title: str) -> Iterator[Result]:
    """Pass results on, with a progress bar on the error stream if it is a terminal."""
    if total and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        results = track(results, title, total, console=Console(stderr=True), transient=True)
    yield from results
