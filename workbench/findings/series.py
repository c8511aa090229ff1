"""A measured value over the steps of a run."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Series:
    """Values over steps, oldest first; recent ones are kept one by one, older ones as means of several."""

    steps: list[int] = field(default_factory=list)  # ascending
    values: list[float] = field(default_factory=list)
    kept: int = 512  # values kept one by one at least, and means of older ones at most; an even number
    means: int = 0  # how many means it begins with
    each: int = 2  # how many values each of them stands for

    def add(self, step: int, value: float) -> None:
        """Append a value; steps never fall."""
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) - self.means >= self.kept + self.each:
            self._merge(self.means, self.means + self.each, self.each)
            self.means += 1
        if self.means > self.kept:
            self._merge(0, self.kept, 2)
            self.means -= self.kept // 2
            self.each *= 2

    def _merge(self, start: int, end: int, count: int) -> None:
        parts = [self.values[at : at + count] for at in range(start, end, count)]
        self.values[start:end] = [sum(part) / count for part in parts]
        self.steps[start:end] = self.steps[start + count - 1 : end : count]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter(zip(self.steps, self.values, strict=True))

    def __getitem__(self, part: slice) -> Series:
        return Series(self.steps[part], self.values[part])

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
        return self[bisect_left(self.steps, step) :]

    def until(self, step: int) -> Series:
        """Before that step."""
        return self[: bisect_left(self.steps, step)]

    def tail(self, count: int) -> Series:
        return self[-count:]

    def recent(self, count: int) -> float:
        """The median of those of the last ``count`` values that are finite."""
        return self.tail(count).finite().median()

    def parts(self, count: int) -> list[Series]:
        """Cut into ``count`` parts that span as many steps each; some may be empty."""
        if not self.steps:
            return [Series() for _ in range(count)]
        first, length = self.steps[0], (self.steps[-1] + 1 - self.steps[0]) / count
        edges = [first + math.ceil(length * part) for part in range(count)] + [self.steps[-1] + 1]
        return [self.since(start).until(end) for start, end in itertools.pairwise(edges)]

    def chunks(self, length: int) -> list[Series]:
        """Cut into parts of ``length`` values each; the oldest values, too few for a part, are left out."""
        return [self[at : at + length] for at in range(len(self) % length, len(self), length)]

    def median(self) -> float:
        """NaN when there is nothing."""
        return median(self.values) if self.values else math.nan

    def spread(self) -> float:
        """A robust standard deviation: 1.48 times the median distance from the median."""
        middle = self.median()
        return 1.4826 * median(abs(value - middle) for value in self.values) if len(self) > 1 else 0.0

    def error_of_median(self) -> float:
        """How far the median would move from one drawing of such values to another: 1.25 sigma / sqrt(n)."""
        return 1.25 * self.spread() / math.sqrt(len(self)) if len(self) else 0.0
