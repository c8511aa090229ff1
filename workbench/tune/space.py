"""The search space of a sweep: which config keys vary and over what, and the points that are tried in it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.errors import UserError

Values = dict[str, Any]  # of one trial: parameter -> number, or the label of a choice

RANGE = {"low", "high", "log", "points", "limits"}
MAX_GRID = 100_000  # points: more than anybody trains


@dataclass(frozen=True)
class Parameter:
    """One key that varies: a list of ``choices``, or a range of integers or floats, both ends included.

    Args:
        name: Unique in the space; the key, unless the parameter belongs to one choice of another.
        key: The config key that it sets.
        choices: Label -> value, for a list; empty for a range.
        low, high: The ends of a range; integers where both are.
        log: Whether steps of a range multiply instead of add.
        points: Values that a grid has in the range.
        limits: How far a range may be extended where the best lies on its border.
        when: (parameter, label): it exists only where that choice is taken.
    """

    name: str
    key: str
    choices: Mapping[Any, Any]
    low: float = 0
    high: float = 0
    log: bool = False
    points: int = 0
    limits: tuple[float, float] = (-math.inf, math.inf)
    when: tuple[str, Any] | None = None

    @property
    def is_integer(self) -> bool:
        return not self.choices and isinstance(self.low, int)

    @property
    def is_float(self) -> bool:
        return not self.choices and isinstance(self.low, float)

    def at(self, position: float) -> Any:
        """The value at a position: 0 is the low end of a range, 1 the high end; choices divide [0, 1) evenly."""
        if self.choices:
            labels = list(self.choices)
            return labels[min(int(position * len(labels)), len(labels) - 1)]
        if self.is_integer and 0 <= position <= 1 and not self.log:  # each integer gets an equal share
            return min(self.low + int(position * (self.high - self.low + 1)), self.high)
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + position * (high - low)
        value = math.exp(value) if self.log else value
        return round(value) if self.is_integer else float(f"{value:.6g}")

    def position(self, value: float) -> float:
        """Where a number lies in the range: 0 at the low end, 1 at the high end; in logarithms where it is log."""
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def moved(self, value: float, cells: float, factor: float) -> Any:
        """The number that lies ``cells`` steps from ``value``, within the limits.

        A step is a factor in a log range, at least 1 between integers, and a cell of the grid in others.
        """
        if self.log:
            value = value * factor**cells
        elif self.is_integer:
            value = value + (round(math.copysign(max(1, abs(cells) * self.cell), cells)) if cells else 0)
        else:
            value = value + cells * self.cell
        value = min(max(value, self.limits[0]), self.limits[1])
        return round(value) if self.is_integer else float(f"{value:.6g}")

    @property
    def cell(self) -> float:
        """The distance of two points of the grid."""
        return (self.high - self.low) / max(1, self.points - 1)

    def grid(self) -> list[Any]:
        """The points of a grid, both ends among them; the middle where it is one."""
        if self.choices:
            return list(self.choices)
        if self.points == 1:
            return [self.at(0.5)]
        if self.is_integer:
            ends = (np.geomspace if self.log else np.linspace)(self.low, self.high, self.points)
            return sorted({round(float(value)) for value in ends})
        return [self.at(i / (self.points - 1)) for i in range(self.points)]


class Space:
    """All parameters of a sweep, read from the ``space`` of its file.

    ``KEY: [a, b]`` are choices, ``KEY: {low: 1, high: 4}`` is a range, and ``KEY: {same_as: OTHER, times: 2}`` follows
    another key. A choice that is a class path may hold ranges of its own in its ``init_args``.

    Raises:
        UserError: A range is empty or contradictory, or a tie leads nowhere.
    """

    def __init__(self, described: Mapping[str, Any]) -> None:
        self.parameters: list[Parameter] = []
        self.ties: dict[str, tuple[str, float]] = {}
        if not isinstance(described, Mapping) or not described:
            raise UserError(
                "The sweep's `space` is empty. It names config keys, such as\n  data.batch_size: [4, 8, 16]"
            )
        for key, value in described.items():
            if isinstance(value, Mapping) and "same_as" in value:
                _only(key, value, {"same_as", "times"})
                self.ties[key] = (value["same_as"], _number(key, "times", value.get("times", 1)))
            else:
                self._add(key, key, value, None)
        known = {parameter.key: parameter for parameter in self.parameters}
        for key, (other, times) in self.ties.items():
            if other not in known:
                there = ", ".join(known)
                raise UserError(f"space.{key}: same_as {other} names no key of the space.\nThere are: {there}.")
            if times != 1 and any(not isinstance(choice, int | float) for choice in known[other].choices.values()):
                raise UserError(f"space.{key}: {other} is no number, so it has no {times} times.")

    def _add(self, name: str, key: str, value: Any, when: tuple[str, Any] | None) -> None:
        if _is_range(value):
            self.parameters.append(_range(name, key, value, when))
            return
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise UserError(f"space.{key} is {value!r}: a list of choices, or a range such as {{low: 1, high: 4}}.")
        labels = _labels(key, value)
        own: list[tuple[str, str, Any, tuple[str, Any]]] = []
        choices: dict[Any, Any] = {}
        for label, choice in zip(labels, value, strict=True):
            choices[label] = choice
            if isinstance(choice, Mapping) and isinstance(choice.get("init_args"), Mapping):
                ranges = {k: v for k, v in choice["init_args"].items() if _is_range(v)}
                fixed = {k: v for k, v in choice["init_args"].items() if k not in ranges}
                choices[label] = {**choice, "init_args": fixed}
                own += [(f"{name}={label}.{k}", f"{key}.init_args.{k}", v, (name, label)) for k, v in ranges.items()]
        self.parameters.append(Parameter(name, key, choices, when=when))
        for nested in own:
            self._add(*nested)

    def active(self, values: Values) -> Iterator[Parameter]:
        """The parameters that exist beside the choices among ``values``, which grow while this is read."""
        for parameter in self.parameters:
            if parameter.when is None or values.get(parameter.when[0]) == parameter.when[1]:
                yield parameter

    def first(self) -> Values:
        """The first choice of each parameter, and the low end of each range."""
        values: Values = {}
        for parameter in self.active(values):
            values[parameter.name] = parameter.at(0)
        return values

    def examples(self) -> Iterator[tuple[str, Values]]:
        """Points in which a parameter, which is named, takes each of its choices, or the ends of its range."""
        for parameter in self.parameters:
            base = self.first() | ({parameter.when[0]: parameter.when[1]} if parameter.when else {})
            for value in parameter.choices or (parameter.low, parameter.high):
                given, point = {**base, parameter.name: value}, {}
                for other in self.active(point):
                    point[other.name] = given.get(other.name, other.at(0))
                yield parameter.name, point

    def words(self, values: Values) -> list[str]:
        """A trial's options for the command line, such as ``--data.batch_size=8``; those of classes first."""
        settings: dict[str, Any] = {}
        for parameter in self.active(values):
            value = values[parameter.name]
            settings[parameter.key] = parameter.choices[value] if parameter.choices else value
        for key, (other, times) in self.ties.items():
            if other in settings:
                value = settings[other]
                settings[key] = value if times == 1 else type(value)(value * times)
        ordered = sorted(settings.items(), key=lambda item: item[0].count("."))
        return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in ordered]

    def grid(self, seed: int, jittered: bool) -> list[Values]:
        """Every point of the grid, in an order that follows from the seed: the first ones cover the space.

        ``jittered``: each range of floats is cut into as many equal cells as it has points, and every point of the
        mesh is drawn at random within its cell (in logarithms where the range is log).
        """
        found = list(itertools.islice(self._combinations(self.parameters, {}, jittered), MAX_GRID + 1))
        if len(found) > MAX_GRID:
            raise UserError(
                f"The grid has more than {MAX_GRID:,} points. Give ranges fewer `points`, or use another sampler."
            )
        rng = np.random.default_rng(seed)
        if jittered:
            for point in found:
                for p in self.active(point):
                    if p.is_float:
                        point[p.name] = p.at((point[p.name] + rng.random()) / p.points)
        return [found[i] for i in rng.permutation(len(found))]

    def _combinations(self, rest: Sequence[Parameter], values: Values, cells: bool) -> Iterator[Values]:
        """Every combination; with ``cells`` the number of the cell instead of a float."""
        if not rest:
            yield dict(values)
            return
        parameter, rest = rest[0], rest[1:]
        if parameter.when is not None and values.get(parameter.when[0]) != parameter.when[1]:
            yield from self._combinations(rest, values, cells)
            return
        for value in range(parameter.points) if cells and parameter.is_float else parameter.grid():
            yield from self._combinations(rest, {**values, parameter.name: value}, cells)

    def point(self, positions: Sequence[float]) -> Values:
        """The point at one position in [0, 1) for each parameter."""
        drawn = {parameter.name: parameter.at(p) for parameter, p in zip(self.parameters, positions, strict=True)}
        return {parameter.name: drawn[parameter.name] for parameter in self.active(drawn)}

    def draw(self, sampler: str, seed: int, start: int, count: int) -> list[Values]:
        """Points ``start`` to ``start + count`` of a random or quasi-random sequence, which the seed determines."""
        if sampler == "random":
            return [
                self.point(np.random.default_rng([seed, i]).random(len(self.parameters)))
                for i in range(start, start + count)
            ]
        from scipy.stats import qmc

        sobol = qmc.Sobol(len(self.parameters), rng=np.random.default_rng(seed))
        drawn = sobol.random(2 ** math.ceil(math.log2(max(2, start + count))))  # a power of two keeps it balanced
        return [self.point(row) for row in drawn[start : start + count]]


def _is_range(value: Any) -> bool:
    return isinstance(value, Mapping) and ("low" in value or "high" in value)


def _range(name: str, key: str, value: Mapping[str, Any], when: tuple[str, Any] | None) -> Parameter:
    _only(key, value, RANGE)
    low, high = (_number(key, end, value.get(end)) for end in ("low", "high"))
    log = bool(value.get("log", False))
    if not low < high:
        raise UserError(f"space.{key}: low {low} has to be below high {high}.")
    if log and low <= 0:
        raise UserError(f"space.{key}: a log range starts above 0, not at {low}.")
    if not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    points = _number(key, "points", value.get("points", min(high - low + 1, 5) if isinstance(low, int) else 3))
    if not isinstance(points, int) or points < 1:
        raise UserError(f"space.{key}: points {points} has to be an integer of at least 1.")
    return Parameter(name, key, {}, low, high, log, points, _limits(key, value, low, high, log), when)


def _limits(key: str, value: Mapping[str, Any], low: float, high: float, log: bool) -> tuple[float, float]:
    """How far a range may grow: as its file says, or 1000 times, or three times its width. A positive number stays
    positive, one that is not negative stays so, and a share of 1 stays one."""
    whole = isinstance(low, int)
    if "limits" in value:
        given = value["limits"]
        if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
            raise UserError(f"space.{key}: limits {given!r} has to be a pair, such as [1.0e-6, 1.0].")
        lowest, highest = (_number(key, "limits", end) for end in given)
        if lowest > low or highest < high or (log and lowest <= 0):
            raise UserError(f"space.{key}: limits {given} have to enclose {low} to {high}" + " above 0." * log)
        return lowest, highest
    if log:
        return max(low / 1000, 1) if whole else low / 1000, high * 1000
    lowest, highest = low - 3 * (high - low), high + 3 * (high - low)
    if low >= 0:
        lowest = max(lowest, 1 if whole and low > 0 else 0)
        highest = 1.0 if not whole and high <= 1 else highest
    return lowest, highest


def _only(key: str, value: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(value.keys() - known):
        raise UserError(f"space.{key}: {', '.join(unknown)} is not known here.\nKnown: {', '.join(sorted(known))}.")


def _number(key: str, name: str, value: Any) -> int | float:
    """YAML reads 1e-3 as text; a number is meant."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"space.{key}: {name} is {value!r}, not a number.") from None
    if not math.isfinite(number):
        raise UserError(f"space.{key}: {name} is {value!r}, not a finite number.")
    return number


def _labels(key: str, choices: Sequence[Any]) -> list[Any]:
    """What choices are called: a scalar by itself, a class by its name, anything else by its text; each once."""
    labels: list[Any] = []
    for i, choice in enumerate(choices):
        if choice in choices[:i]:
            raise UserError(f"space.{key}: {choice!r} stands there twice.")
        label = choice
        if isinstance(choice, Mapping) and "class_path" in choice:
            label = str(choice["class_path"]).rpartition(".")[2]
        elif not (choice is None or isinstance(choice, bool | int | float | str)):
            label = json.dumps(choice)
        number = 1 + sum(str(known).split("-")[0] == label for known in labels)
        labels.append(label if label not in labels else f"{label}-{number}")
    return labels
