"""Findings, and the engine behind them: evaluates rules by cause, and suppresses what a named fault implies."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple

from workbench.errors import UserError


@dataclass(frozen=True)
class Finding:
    """One line of ``findings.jsonl``."""

    code: str  # a section of docs/faults.md
    severity: Literal["fault", "note"]  # training is being harmed, or worth a look
    step: int  # optimizer steps that were done when it was found; 0 before training
    where: str  # the layer, file, split, loss or network
    value: float | str  # what was measured
    limit: float | str  # what it should have kept to
    advice: str  # one or two sentences to act on

    @property
    def is_fault(self) -> bool:
        return self.severity == "fault"

    def line(self) -> str:
        """One line of JSON; numbers that JSON does not know (NaN, infinity) become text."""
        values = asdict(self)
        for name, value in values.items():
            if isinstance(value, float):
                values[name] = float(f"{value:.6g}") if math.isfinite(value) else str(value)
        return json.dumps(values, ensure_ascii=False)

    def message(self) -> str:
        """One line for people."""
        measured = f"{rounded(self.value)} (limit {rounded(self.limit)})"
        return f"{self.severity.upper()} {self.code} at step {self.step}, {self.where}: {measured}. {self.advice}"


def append_findings(path: Path, findings: list[Finding]) -> None:
    """Add findings to a ``findings.jsonl``; creates the file even when there are none."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(finding.line() + "\n" for finding in findings)


def read_findings(path: Path) -> list[Finding]:
    """All findings of a ``findings.jsonl``, oldest first."""
    return [Finding(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def rounded(value: float | str) -> str:
    """A measured value or limit for people."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Found(NamedTuple):
    """What a rule has found, as in a Finding."""

    where: str
    value: float | str
    limit: float | str
    advice: str
    is_fault: bool = True  # training is being harmed; else it is a note
    step: int | None = None  # None: the last one


@dataclass(frozen=True)
class Passed:
    """A rule that looked and found nothing: what was measured, and the limit it kept to."""

    value: float | str
    limit: float | str
    code: str = ""  # the rule's


@dataclass(frozen=True)
class Skipped:
    """A rule that was not evaluated, and why, in a few words."""

    reason: str
    code: str = ""
    failed: bool = False  # it raised an exception


Result = Found | Passed | Skipped
Outcome = Finding | Passed | Skipped


class Level(IntEnum):
    """Where a fault sits. What is wrong at a lower level shows at the higher ones too, so the lowest is the cause."""

    DATA = 0
    WIRING = 1
    RATE = 2
    SYMPTOM = 3


@dataclass
class Rule:
    """One thing that can be wrong: a function of a History while training, of a CheckContext before the first step.

    To add one, write it, and list it in a table: RULES; CHECKS, or what a data module's ``checks()`` returns.
    """

    code: str  # the finding's code, a section of docs/faults.md
    find: Callable[[Any], Result | None]  # None where all is well or there is not enough evidence yet
    level: Level = Level.SYMPTOM
    implied_by: Set[str] = frozenset()  # codes of faults that explain this one, whatever their level
    steps: int = 0  # optimizer steps before which it is not evaluated
    harms_learning: bool = True  # whether it shows in how a network learns, and may suppress higher levels

    def evaluate(self, subject: Any) -> Outcome:
        found = (self.find(subject) if subject.step >= self.steps else None) or Skipped("nothing to check")
        return self.finding(found, subject.step) if isinstance(found, Found) else replace(found, code=self.code)

    def finding(self, found: Found, step: int = 0) -> Finding:
        severity = "fault" if found.is_fault else "note"
        advice = f"{found.advice} See docs/faults.md#{self.code}."
        step = step if found.step is None else found.step
        return Finding(self.code, severity, step, found.where, found.value, found.limit, advice)


class RuleEngine:
    """Evaluates rules by level, causes first, and reports each finding once.

    Data and wiring are always evaluated; rates and symptoms only while nothing at a lower level is wrong. Symptoms
    follow from each other: a fault also suppresses those later in ``rules``, which hold causes first within a level.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = sorted(rules, key=lambda rule: rule.level)
        self.faults: list[str] = []  # codes that were reported as faults; they suppress what follows from them
        self.notes: list[str] = []  # codes that were reported as notes, each of which may still become a fault

    def run(self, subject: Any, before: Callable[[Rule], None] = lambda rule: None) -> Iterator[Outcome]:
        """The outcomes of all rules that have not reported a fault yet; ``before`` is called with each one evaluated.

        A UserError is raised; a rule that fails otherwise is left out from then on.
        """
        for rule in [rule for rule in self.rules if rule.code not in self.faults]:
            cause = self._cause_of(rule)
            if cause is not None:
                yield Skipped(f"would follow from {cause}", rule.code)
                continue
            before(rule)
            try:
                outcome = rule.evaluate(subject)
            except UserError:
                raise
            except Exception as error:  # a stranger's network may not bear it; the other rules still can
                self.rules.remove(rule)
                reason = " ".join(str(error).split())[:120]
                outcome = Skipped(f"could not be checked: {type(error).__name__}: {reason}", rule.code, failed=True)
            if isinstance(outcome, Finding):
                reported = self.faults if outcome.is_fault else self.notes
                if outcome.code not in reported:
                    reported.append(outcome.code)
            yield outcome

    def evaluate(self, subject: Any) -> list[Finding]:
        """What is new since the last call, causes first."""
        new, notes = [], set(self.notes)
        for outcome in self.run(subject):
            if isinstance(outcome, Finding) and (outcome.is_fault or outcome.code not in notes):
                new.append(outcome)
            elif isinstance(outcome, Skipped) and outcome.failed:
                warnings.warn(f"The rule {outcome.code} {outcome.reason}; it is left out.", stacklevel=2)
        return new

    def _cause_of(self, rule: Rule) -> str | None:
        """The code of the first reported fault that explains whatever the rule would find."""
        place = self.rules.index(rule)
        for number, fault in enumerate(self.rules):
            below = fault.harms_learning and fault.level < rule.level and rule.level >= Level.RATE
            earlier = fault.level == rule.level == Level.SYMPTOM and number < place
            if fault.code in self.faults and (below or earlier or fault.code in rule.implied_by):
                return fault.code
        return None
