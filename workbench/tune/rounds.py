"""What a sweep tries after what: the space, past its border, finer around the best, the best with other seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from workbench.tune.space import Parameter, Space, Values

OUTER = 0.1  # share of a range at each end that counts as its border, where no grid says how wide it is
REPEATS = 2  # further seeds for the best, to show how far chance goes


@dataclass(frozen=True)
class Settings:
    """A sweep, as its file describes it.

    Args:
        space: Config keys and what they vary over, see `Space`.
        objective: The metric of validations that trials are compared by.
        mode: min or max; by default as the metric has it.
        sampler: grid, jittered_grid (each point drawn within its cell), random, quasi_random (Sobol), or tpe.
        trials: How many points to try in the space; 0 for every point of a grid.
        patience: Validations without a better objective after which a trial stops; 0 for never.
        prune: Stop trials that do worse than the median of at least five others at the same step.
        refine: Factor of a finer second round around the best, such as 3; 0 for none.
        extend: At most so many steps past a border of the space that the best lies on; 0 for none.
        seed: Of the points; trials themselves have the configuration's seed_everything.
    """

    space: dict[str, Any]
    objective: str
    mode: str | None = None
    sampler: str = "tpe"
    trials: int = 24
    patience: int = 0
    prune: bool = False
    refine: float = 0.0
    extend: int = 4
    seed: int = 0

    @property
    def words(self) -> list[str]:
        """Options of a trial that follow from the objective: which checkpoint is the best, and when to stop early."""
        keys = {"checkpoint.monitor": self.objective, "checkpoint.mode": self.mode}
        if self.patience:
            keys |= {"early_stopping.monitor": self.objective, "early_stopping.mode": self.mode}
            keys |= {"early_stopping.patience": self.patience}
        return [f"--{key}={value}" for key, value in keys.items() if value is not None]


class Result(NamedTuple):
    """A finished trial: what it tried, and the best of its objective; None if it failed."""

    index: int
    values: Values
    score: float | None


@dataclass(frozen=True)
class Round:
    """Trials that may run at the same time. ``points`` are what they try; None where TPE chooses."""

    kind: str  # search, extend, refine or repeat
    points: list[Values | None]
    why: str

    @property
    def seed_offsets(self) -> list[int]:
        """What is added to each trial's seed."""
        return list(range(1, len(self.points) + 1)) if self.kind == "repeat" else [0] * len(self.points)


def next_round(settings: Settings, space: Space, rounds: Sequence[Round], results: Sequence[Result]) -> Round | None:
    """The round after these, all of whose trials are finished; None at the end.

    It follows from the arguments alone, so that several processes find the same one.
    """
    searched = sum(len(round.points) for round in rounds if round.kind == "search")
    if found := search_points(settings, space, searched):
        return Round("search", found, f"{settings.sampler} over the space")
    best = best_result(results, settings.mode)
    if best is None:
        return None
    last = max(i for i, round in enumerate(rounds) if round.kind == "search")
    since = rounds[last:]
    kinds = [round.kind for round in since]
    steps = [(p, best.values[p.name], beyond(p, best.values, results, settings)) for p in numeric(space, best.values)]
    steps = [(p, value, to) for p, value, to in steps if to is not None]
    moved = [(p, value, to) for p, value, to in steps if to != value and not 0 <= p.position(to) <= 1]
    if moved and not {"refine", "repeat"} & {*kinds} and kinds.count("extend") < settings.extend:
        why = ", ".join(f"{p.name} = {value:g}: extended to {to:g}" for p, value, to in moved)
        points = [{**best.values, p.name: to} for p, value, to in moved]
        return Round("extend", points, f"the best lies at the border {why}")
    where = "the best lies inside the space"
    if steps:
        where = "the best lies at the border still, at " + ", ".join(f"{p.name} = {value:g}" for p, value, _ in steps)
    if settings.refine > 1 and not {"refine", "repeat"} & {*kinds}:
        points = refined(settings, space, best.values, results)
        if points:
            return Round("refine", points, f"finer by factors of {settings.refine:g} around the best; {where}")
    if "repeat" not in kinds:
        return Round("repeat", [best.values] * REPEATS, f"the best with {REPEATS} further seeds; {where}")
    return None


def search_points(settings: Settings, space: Space, start: int) -> list[Values | None]:
    """The points of the space from ``start`` on, as many as the settings ask for."""
    if settings.sampler in ("grid", "jittered_grid"):
        points = space.grid(settings.seed, settings.sampler == "jittered_grid")
        return list(points[start : settings.trials or None])
    count = max(0, settings.trials - start)
    if settings.sampler == "tpe":
        return [None] * count
    return list(space.draw(settings.sampler, settings.seed, start, count)) if count else []


def best_result(results: Sequence[Result], mode: str | None) -> Result | None:
    """The best of those that have a score, the earliest of equal ones."""
    scored = [result for result in results if result.score is not None]
    sign = 1 if mode == "min" else -1
    return min(scored, key=lambda result: (sign * result.score, result.index), default=None)


def numeric(space: Space, values: Values) -> list[Parameter]:
    """The ranges among the parameters that these values have."""
    return [parameter for parameter in space.active(values) if not parameter.choices]


def beyond(parameter: Parameter, values: Values, results: Sequence[Result], settings: Settings) -> Any | None:
    """One step past the border that the value lies on; None where it lies inside, or a step beyond it was tried."""
    value = values[parameter.name]
    position = parameter.position(value)
    outer = OUTER
    if settings.sampler in ("grid", "jittered_grid") and parameter.points > 1:
        on_ends = settings.sampler == "grid" or parameter.is_integer
        outer = 1 / (2 * (parameter.points - 1)) if on_ends else 1 / parameter.points
    if outer < position < 1 - outer:
        return None
    sign = 1 if position >= 0.5 else -1
    start = value if not 0 <= position <= 1 else parameter.high if sign > 0 else parameter.low
    to = parameter.moved(start, sign, settings.refine if settings.refine > 1 else 3.0)
    name = parameter.name
    line = [r.values[name] for r in results if name in r.values and {**r.values, name: value} == values]
    return None if any(sign * t > sign * value and not 0 <= parameter.position(t) <= 1 for t in line) else to


def refined(settings: Settings, space: Space, best: Values, results: Sequence[Result]) -> list[Values | None]:
    """Points around the best, a step of `refine` away at most: a mesh for grids, else half as many as were searched."""
    ranges = numeric(space, best)
    factor = settings.refine
    mesh = {}
    for p in ranges:
        step = 1.0 if p.log else 1 / factor
        mesh[p.name] = sorted({p.moved(best[p.name], cells, factor) for cells in (-step, 0.0, step)})
    tried = [result.values for result in results]
    if settings.sampler in ("grid", "jittered_grid"):
        points = [{**best, **dict(zip(mesh, point, strict=True))} for point in itertools.product(*mesh.values())]
        points = [point for point in points if point not in tried]
        order = np.random.default_rng(settings.seed).permutation(len(points))
        return [points[i] for i in order][: settings.trials or None]
    rng, points = np.random.default_rng([settings.seed, len(results)]), []
    for _ in range(max(1, settings.trials // 2) if ranges else 0):
        point = dict(best)
        for p in ranges:
            low, high = p.position(mesh[p.name][0]), p.position(mesh[p.name][-1])
            point[p.name] = _inside(p, low + rng.random() * (high - low))
        points.append(point)
    return points


def _inside(parameter: Parameter, position: float) -> Any:
    """The value at a position that may lie outside of the range, within the limits."""
    if parameter.is_integer and not parameter.log:
        value = round(parameter.low + position * (parameter.high - parameter.low))
    else:
        value = parameter.at(position)
    return min(max(value, parameter.limits[0]), parameter.limits[1])
