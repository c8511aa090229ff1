"""Wall and CPU time of this process, and how the sides of a comparison are printed."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in time, or the time between two: seconds by the clock, and of the processor in all threads."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Moment, parts: int = 1) -> Moment:
        """Seconds from ``start`` to here, divided by ``parts``."""
        return Moment((self.wall - start.wall) / parts, (self.cpu - start.cpu) / parts)


def print_comparison(title: str, sides: dict[str, list[Moment]], unit: str, factor: float = 1.0) -> None:
    """Print each side's medians over the rounds, and its median ratio, round by round, to the last side.

    ``factor`` leads from seconds to the unit.
    """
    *_, (last, reference) = sides.items()
    print(f"{title} ({len(reference)} rounds, medians)")
    for name, rounds in sides.items():
        cells = []
        for what in ("wall", "cpu"):
            median = statistics.median(getattr(one, what) for one in rounds) * factor
            ratios = [getattr(a, what) / max(getattr(b, what), 1e-9) for a, b in zip(rounds, reference, strict=True)]
            ratio = "" if name == last else f" (x {statistics.median(ratios):.3f})"
            cells.append(f"{what} {median:9.1f} {unit}{ratio}")
        print(f"  {name:<{max(map(len, sides))}}  " + "   ".join(cells), flush=True)
