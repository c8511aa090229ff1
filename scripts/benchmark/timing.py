"""Times the sides of a comparison in turns, and prints medians, spreads and ratios.

A time is an array of two numbers: seconds by the clock, and of the CPU in all threads and finished child processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

NOISY = 0.15
"""Spread from which a comparison is not to be trusted: the range of the rounds over their median."""
Sides = dict[str, Callable[[], np.ndarray]]


def now() -> np.ndarray:
    children = os.times()
    return np.array([time.perf_counter(), time.process_time() + children.children_user + children.children_system])


def timed(run: Callable[[], int]) -> np.ndarray:
    """Time for one of the parts of ``run``, which returns their number; 0: it has none."""
    start = now()
    parts = run() or 1
    return (now() - start) / parts


def compare(title: str, sides: Sides, rounds: int, unit: str, factor: float, warm_up: int = 1) -> None:
    """Run each side once a round, first so many rounds that do not count, and print a table.

    In it: each side's medians over the rounds, their spread, and the median ratio, round by round, to the last side;
    ``factor`` leads from seconds to the unit.
    """
    turns = [[measure() for measure in sides.values()] for _ in range(warm_up + rounds)]
    times = np.array(turns[warm_up:])  # rounds, sides, wall and CPU
    medians = np.median(times, axis=0)
    spreads = np.ptp(times, axis=0) / medians
    ratios = np.median(times / times[:, -1:], axis=0)
    table = Table("", title=f"{title} ({rounds} rounds)", box=box.SIMPLE, title_justify="left")
    for heading in (f"wall ({unit})", "spread", "ratio", f"CPU ({unit})", "spread", "ratio"):
        table.add_column(heading, justify="right")
    for name, *numbers in zip(sides, medians * factor, spreads, ratios, strict=True):
        cells = []
        for median, spread, ratio in zip(*numbers, strict=True):
            cells += [f"{median:.2f}", f"{spread:.0%}", f"{ratio:.3f}"]
        table.add_row(name, *cells)
    Console(width=120).print(table)
    for what, spread in zip(("wall", "CPU"), spreads.max(axis=0), strict=True):
        if spread > NOISY:
            print(f"Too noisy to tell by {what} time: the rounds of one side differ by {spread:.0%} of their median.")
            print("Repeat it on an idle machine, or with more --rounds and --steps.", flush=True)
