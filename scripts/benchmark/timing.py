"""Times the sides of a comparison in turns, and prints medians, spreads and ratios."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

NOISY = 0.15
"""Spread from which a comparison is not to be trusted: the range of the rounds over their median."""


class Moment(NamedTuple):
    """A point in time, or the time between two: seconds by the clock, and of all threads and finished children."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Moment:
        children = os.times()
        return cls(time.perf_counter(), time.process_time() + children.children_user + children.children_system)

    def since(self, start: Moment, parts: int = 1) -> Moment:
        """Seconds from ``start`` to here, divided by ``parts``."""
        return Moment((self.wall - start.wall) / parts, (self.cpu - start.cpu) / parts)


def timed(run: Callable[[], int]) -> Moment:
    """Time for one of the parts of ``run``, which returns their number."""
    start = Moment.now()
    parts = run()
    return Moment.now().since(start, parts)


def take_turns(sides: dict[str, Callable[[], Moment]], rounds: int, warm_up: int = 1) -> dict[str, list[Moment]]:
    """Run each side once a round, and first so many rounds that do not count."""
    turns = [{name: measure() for name, measure in sides.items()} for _ in range(warm_up + rounds)]
    return {name: [times[name] for times in turns[warm_up:]] for name in sides}


def print_comparison(title: str, times: dict[str, list[Moment]], unit: str, factor: float) -> None:
    """Print each side's medians over the rounds, their spread, and the median ratio, round by round, to the last side.

    ``factor`` leads from seconds to the unit.
    """
    *_, reference = times.values()
    table = Table("", title=f"{title} ({len(reference)} rounds)", box=box.SIMPLE, title_justify="left")
    for heading in (f"wall ({unit})", "spread", "ratio", f"CPU ({unit})", "spread", "ratio"):
        table.add_column(heading, justify="right")
    worst = 0.0
    for name, moments in times.items():
        cells = []
        for seconds, others in zip(zip(*moments, strict=True), zip(*reference, strict=True), strict=True):
            median = statistics.median(seconds)
            spread = (max(seconds) - min(seconds)) / median
            ratio = statistics.median(a / b for a, b in zip(seconds, others, strict=True))
            cells += [f"{median * factor:.1f}", f"{spread:.0%}", f"{ratio:.3f}"]
            worst = max(worst, spread)
        table.add_row(name, *cells)
    Console(width=120).print(table)
    if worst > NOISY:
        print(
            f"Too noisy to tell: the rounds of one side differ by {worst:.0%} (limit {NOISY:.0%}). Repeat it on an idle"
        )
        print("machine, or with more --rounds and --steps.", flush=True)
