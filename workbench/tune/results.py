"""What a study holds, as rows that tables, charts and sentences are made from."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.errors import UserError
from workbench.tune.rounds import Round, Settings
from workbench.tune.space import Parameter, Space, Values

if TYPE_CHECKING:
    import optuna

MAX_LABEL = 24  # characters of a value
MIN_FOR_IMPORTANCE = 12  # trials: the best 5 have to be a part
FINISHED, FAILED, PRUNED, RUNNING = "finished", "failed", "pruned", "running"


@dataclass(frozen=True)
class Row:
    """A trial: what it tried, and what came of it."""

    trial: int
    kind: str  # of its round: search, extend, refine, repeat
    state: str
    values: Values
    score: float | None
    seconds: float = 0.0
    parameters: int | None = None
    epochs: int | None = None
    steps: int | None = None
    run: str = ""
    reason: str = ""
    curve: list[list[float]] = field(default_factory=list)  # step, seconds, objective


@dataclass(frozen=True)
class Results:
    """A study as it stands: its settings, and its rows in the order in which they were planned."""

    name: str
    settings: Settings
    space: Space
    words: list[str]  # of the command line, that every trial has
    rounds: list[Round]
    rows: list[Row]

    @property
    def objective(self) -> str:
        return self.settings.objective

    @property
    def sign(self) -> int:
        """1 where a low objective is better, -1 where a high one is."""
        return 1 if self.settings.mode == "min" else -1

    @cached_property
    def ranked(self) -> list[Row]:
        """The finished trials, the best first, the earliest of equal ones; those that repeat another are left out."""
        scored = [row for row in self.rows if row.score is not None and row.kind != "repeat"]
        return sorted(scored, key=lambda row: (self.sign * row.score, row.trial))

    @cached_property
    def repeats(self) -> list[Row]:
        """The finished repeats of the best, with other seeds."""
        return [
            row
            for row in self.rows
            if row.kind == "repeat" and row.score is not None and row.values == self.ranked[0].values
        ]

    @cached_property
    def parameters(self) -> list[Parameter]:
        """What was tried with more than one value."""
        return [p for p in self.space.parameters if len({str(r.values[p.name]) for r in self.with_(p)}) > 1]

    def with_(self, parameter: Parameter) -> list[Row]:
        """The rows that have this parameter, repeats left out."""
        return [row for row in self.rows if row.kind != "repeat" and parameter.name in row.values]

    @cached_property
    def names(self) -> dict[str, str]:
        """The shortest name of each parameter that is unique among them."""
        return short_names(parameter.name for parameter in self.space.parameters)

    def point(self, values: Values, names: Iterable[str] | None = None) -> str:
        """Values on one line, such as ``optimizer Adam, lr 0.003``."""
        shown = values if names is None else [name for name in values if name in set(names)]
        return ", ".join(f"{self.names.get(name, name)} {shorten(show(values[name]))}" for name in shown)

    @cached_property
    def importance(self) -> dict[str, float]:
        """How much each parameter decides whether a trial is among the best, by PED-ANOVA: shares that add up to 1.

        Empty where there are too few trials. It works on a study of its own: in the real one a range that was extended
        counts as another range, and the best is there several times.
        """
        scored = self.ranked
        if len(scored) < MIN_FOR_IMPORTANCE or len(self.parameters) < 2:
            return {}
        if scored[self.leaders - 1].score == scored[-1].score:  # none are better than others
            return {}
        from workbench.tune.study import import_optuna

        optuna = import_optuna()
        distributions: dict[str, Any] = {}
        for p in self.parameters:
            tried = [row.values[p.name] for row in scored if p.name in row.values]
            if p.choices:
                distributions[p.name] = optuna.distributions.CategoricalDistribution([repr(c) for c in p.choices])
            elif tried:
                kind = optuna.distributions.IntDistribution if p.is_integer else optuna.distributions.FloatDistribution
                distributions[p.name] = kind(min([p.low, *tried]), max([p.high, *tried]), log=p.log)
        study = optuna.create_study(direction="minimize")
        for row in scored:
            values = {name: v for name, v in row.values.items() if name in distributions}
            values = {n: repr(v) if self._parameter(n).choices else v for n, v in values.items()}
            study.add_trial(
                optuna.trial.create_trial(
                    params=values, distributions={n: distributions[n] for n in values}, value=self.sign * row.score
                )
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is experimental, and says where a condition leaves it few trials
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=self.leaders / len(scored))
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return found if sum(found.values()) > 0 else {}

    @property
    def leaders(self) -> int:
        """How many of the best the importance looks at: a tenth, but at least 5, which Optuna advises."""
        return max(5, round(len(self.ranked) / 10))

    def _parameter(self, name: str) -> Parameter:
        return next(p for p in self.space.parameters if p.name == name)


def read_results(study: optuna.Study) -> Results:
    """A study's results; UserError where it was not made by ``sweep``."""
    try:
        described = json.loads(study.user_attrs["sweep"])
        known = {setting.name for setting in dataclasses.fields(Settings)}
        settings = Settings(**{key: value for key, value in described["settings"].items() if key in known})
    except (KeyError, TypeError, ValueError):
        raise UserError(f"The study {study.study_name!r} was not made by `sweep`: it names no settings.") from None
    if settings.mode is None:
        settings = dataclasses.replace(settings, mode=study.direction.name[:3].lower())
    rounds = [Round(**round) for round in study.user_attrs.get("rounds", [])]
    attempts: dict[int, list[Any]] = {}
    for trial in study.get_trials(deepcopy=False):
        if "index" in trial.user_attrs:  # else it waits, or was enqueued twice
            attempts.setdefault(trial.user_attrs["index"], []).append(trial)
    rows = [_row(index, tried) for index, tried in sorted(attempts.items())]
    return Results(study.study_name, settings, Space(settings.space), list(described.get("words", [])), rounds, rows)


def _row(index: int, attempts: list[Any]) -> Row:
    """Of several attempts the last one that finished counts."""
    states = [(_state(trial), trial) for trial in attempts]
    state, trial = next((pair for pair in reversed(states) if pair[0] != RUNNING), states[-1])
    attrs = trial.user_attrs
    curve = attrs.get("curve", [])
    return Row(
        trial=index,
        kind=attrs.get("kind", "search"),
        state=state,
        values=attrs.get("values", {}),
        score=trial.value if state == FINISHED else None,
        seconds=attrs.get("seconds", curve[-1][1] if curve else 0.0),
        parameters=attrs.get("parameters"),
        epochs=attrs.get("epochs"),
        steps=attrs.get("steps", int(curve[-1][0]) if curve else None),
        run=attrs.get("run", ""),
        reason="" if state in (FINISHED, RUNNING) else attrs.get("reason", ""),
        curve=curve,
    )


def _state(trial: Any) -> str:
    """What fails without a reason was killed or stopped, and is continued: it counts as running."""
    name = trial.state.name
    if name == "FAIL":
        return FAILED if "reason" in trial.user_attrs else RUNNING
    return {"COMPLETE": FINISHED, "PRUNED": PRUNED}.get(name, RUNNING)


def short_names(names: Iterable[str]) -> dict[str, str]:
    """``model.init_args.optimizer.init_args.lr`` -> ``lr``, or ``optimizer.lr`` where another name ends so as well."""
    parts = {name: [part for part in re.split(r"[.=]", name) if part != "init_args"] for name in names}

    def end(name: str, count: int) -> str:
        return ".".join(parts[name][-count:])

    found = {}
    for name in parts:
        counts = range(1, len(parts[name]) + 1)
        unique = (n for n in counts if sum(end(other, n) == end(name, n) for other in parts) == 1)
        found[name] = end(name, next(unique, len(parts[name])))
    return found


def show(value: Any) -> str:
    """A value as it is printed: three digits of a number."""
    if isinstance(value, float):
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def show_score(score: float) -> str:
    return f"{score:.5g}"


def show_time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def shorten(text: str, length: int = MAX_LABEL) -> str:
    """The text with its middle left out, where it is longer than that."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-(length - 1 - half) :]}"


def wrap(name: str, width: int = 16) -> str:
    """A name in lines of about ``width`` characters, broken behind its dots, else behind its underscores."""
    lines = [""]
    for part in name.replace(".", ".\0").replace("_", "_\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(shorten(line, width + 6) for line in lines)
