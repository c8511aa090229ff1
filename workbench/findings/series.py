"""A figure over the steps of a run."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator
from statistics import median


class Series:
    """Values over steps, oldest first; the latest one by one, those of long ago as means of several.

    Args:
        steps: To begin with; rising.
        values: One for each.
        kept: At least so many are kept one by one, and at most so many means of all before; an even number.
    """

    def __init__(self, steps: list[int] | None = None, values: list[float] | None = None, kept: int = 512) -> None:
        self.steps = steps or []
        self.values = values or []
        self.kept = kept
        self._means = 0
        self._each = 2

    def add(self, step: int, value: float) -> None:
        """Append a value; steps never fall."""
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) - self._means >= self.kept + self._each:
            self._merge(self._means, self._means + self._each, self._each)
            self._means += 1
        if self._means > self.kept:
            self._merge(0, self.kept, 2)
            self._means -= self.kept // 2
            self._each *= 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """What a series is beside its values: ``kept``, how many means it begins with, and of how many values each."""
        return self.kept, self._means, self._each

    @classmethod
    def restored(cls, steps: list[int], values: list[float], shape: tuple[int, int, int]) -> Series:
        """The series that had these steps, values and shape."""
        series = cls(steps, values)
        series.kept, series._means, series._each = shape
        return series

    def _merge(self, start: int, end: int, count: int) -> None:
        """Put the mean in the place of each ``count`` values from ``start`` to ``end``."""
        parts = [self.values[at : at + count] for at in range(start, end, count)]
        self.values[start:end] = [sum(part) / count for part in parts]
        self.steps[start:end] = self.steps[start + count - 1 : end : count]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter(zip(self.steps, self.values, strict=True))

    @property
    def last(self) -> float:
        return self.values[-1] if self.values else math.nan

    @property
    def last_step(self) -> int:
        return self.steps[-1] if self.steps else -1

    def finite(self) -> Series:
        """Without NaN and infinities; itself, where there are none."""
        if math.isfinite(sum(self.values)):  # what rules call most, of series without any most of the time
            return self
        kept = [(step, value) for step, value in self if math.isfinite(value)]
        return Series([step for step, _ in kept], [value for _, value in kept])

    def since(self, step: int) -> Series:
        """From that step on."""
        at = bisect_left(self.steps, step)
        return Series(self.steps[at:], self.values[at:])

    def until(self, step: int) -> Series:
        """Before that step."""
        at = bisect_left(self.steps, step)
        return Series(self.steps[:at], self.values[:at])

    def tail(self, count: int) -> Series:
        """The last ``count`` values."""
        return Series(self.steps[-count:], self.values[-count:]) if count else Series()

    def median(self) -> float:
        """NaN when there is nothing."""
        return median(self.values) if self.values else math.nan

    def parts(self, count: int) -> list[Series]:
        """The series cut into ``count`` parts that span as many steps each; some may be empty."""
        if not self.steps:
            return [Series() for _ in range(count)]
        first, length = self.steps[0], (self.steps[-1] + 1 - self.steps[0]) / count
        edges = [first + math.ceil(length * part) for part in range(count)] + [self.steps[-1] + 1]
        return [self.since(start).until(end) for start, end in itertools.pairwise(edges)]


def spread(series: Series) -> float:
    """A robust standard deviation: 1.48 times the median distance from the median."""
    if len(series) < 2:
        return 0.0
    middle = series.median()
    return 1.4826 * median(abs(value - middle) for value in series.values)


def error_of_median(series: Series) -> float:
    """About how far the median would move from one drawing of such values to another (1.25 sigma / sqrt(n))."""
    return 1.25 * spread(series) / math.sqrt(len(series)) if len(series) else 0.0
