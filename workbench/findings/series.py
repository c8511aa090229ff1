"""A measured value over the steps of a run."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator
from statistics import median


class Series:
    """Values over steps, oldest first; recent ones are kept one by one, older ones as means of several.

    Args:
        steps: Initial steps, ascending.
        values: One for each.
        kept: Values kept one by one at least, and means of older ones at most; an even number.
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

    def _merge(self, start: int, end: int, count: int) -> None:
        parts = [self.values[at : at + count] for at in range(start, end, count)]
        self.values[start:end] = [sum(part) / count for part in parts]
        self.steps[start:end] = self.steps[start + count - 1 : end : count]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``kept``, the number of means that the series begins with, and how many values each stands for."""
        return self.kept, self._means, self._each

    @classmethod
    def restored(cls, steps: list[int], values: list[float], shape: tuple[int, int, int]) -> Series:
        """The series that had these steps, values and shape."""
        series = cls(steps, values)
        series.kept, series._means, series._each = shape
        return series

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
        """Without NaN and infinities."""
        if math.isfinite(sum(self.values)):  # the usual case, and what rules call most
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

    def parts(self, count: int) -> list[Series]:
        """Cut into ``count`` parts that span as many steps each; some may be empty."""
        if not self.steps:
            return [Series() for _ in range(count)]
        first, length = self.steps[0], (self.steps[-1] + 1 - self.steps[0]) / count
        edges = [first + math.ceil(length * part) for part in range(count)] + [self.steps[-1] + 1]
        return [self.since(start).until(end) for start, end in itertools.pairwise(edges)]

    def chunks(self, length: int) -> list[Series]:
        """Cut into parts of ``length`` values each; the oldest values, too few for a part, are left out."""
        start = len(self) % length
        return [
            Series(self.steps[at : at + length], self.values[at : at + length])
            for at in range(start, len(self), length)
        ]

    def median(self) -> float:
        """NaN when there is nothing."""
        return median(self.values) if self.values else math.nan

    def spread(self) -> float:
        """A robust standard deviation: 1.48 times the median distance from the median."""
        if len(self) < 2:
            return 0.0
        middle = self.median()
        return 1.4826 * median(abs(value - middle) for value in self.values)

    def error_of_median(self) -> float:
        """How far the median would move from one drawing of such values to another: 1.25 sigma / sqrt(n)."""
        return 1.25 * self.spread() / math.sqrt(len(self)) if len(self) else 0.0
