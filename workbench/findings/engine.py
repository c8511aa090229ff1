"""The engine behind all findings: evaluates rules in order of cause, and suppresses what a named fault implies."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Generic, TypeVar

from workbench.errors import UserError
from workbench.findings.finding import FAULTS_PAGE, Finding

Subject = TypeVar("Subject")
"""What a rule evaluates: a History while training, a context of data and model before the first step."""


@dataclass(frozen=True)
class Passed:
    """A rule that looked and found nothing: what was measured, and the limit it kept to."""

    code: str
    value: float | str
    limit: float | str


@dataclass(frozen=True)
class Skipped:
    """A rule that was not evaluated, and why, in a few words."""

    code: str
    reason: str


Outcome = Finding | Passed | Skipped


class Level(IntEnum):
    """Where a fault sits. What is wrong at a lower level shows at the higher ones too, so the lowest is the cause."""

    DATA = 0
    WIRING = 1
    RATE = 2
    SYMPTOM = 3


class Rule(ABC, Generic[Subject]):
    """One thing that can be wrong, and how it is recognized. To add one: inherit, and write ``evaluate``."""

    code: ClassVar[str]  # the finding's code, a section of docs/faults.md
    level: ClassVar[Level]  # where the fault sits
    implied_by: ClassVar[frozenset[str]] = frozenset()  # codes of faults that explain this one, whatever their level
    harms_learning: ClassVar[bool] = True  # whether it shows in how a network learns, and may suppress higher levels

    @abstractmethod
    def evaluate(self, subject: Subject) -> Outcome | list[Outcome] | None:
        """What was found; None where all is well or there is not enough evidence yet."""

    def _finding(self, severity: str, step: int, where: str, value: float | str, limit: float | str, advice: str):
        advice = f"{advice} See {FAULTS_PAGE}#{self.code}."
        return Finding(self.code, severity, step, where, value, limit, advice)

    def passed(self, value: float | str, limit: float | str) -> Passed:
        """All is well."""
        return Passed(self.code, value, limit)

    def skipped(self, reason: str) -> Skipped:
        """Nothing could be measured."""
        return Skipped(self.code, reason)


def suppressed_by(rule: Rule, faults: Iterable[Rule]) -> str | None:
    """The code of the first of ``faults`` that explains whatever ``rule`` would find; None: none does.

    Data and wiring are always evaluated; rates and symptoms only while nothing at a lower level is wrong.
    """
    for fault in faults:
        below = fault.harms_learning and fault.level < rule.level and rule.level >= Level.RATE
        if below or fault.code in rule.implied_by:
            return fault.code
    return None


class RuleEngine(Generic[Subject]):
    """Evaluates rules by level, causes first, and reports each finding once.

    Args:
        rules: Within a level, causes before what follows from them.
    """

    def __init__(self, rules: Iterable[Rule[Subject]]) -> None:
        self.rules = sorted(rules, key=lambda rule: rule.level)
        self.faults: list[str] = []  # codes that were reported as faults; they suppress what follows from them
        self.notes: list[str] = []  # codes that were reported as notes, each of which may still become a fault

    def run(self, subject: Subject, before: Callable[[Rule[Subject]], None] = lambda rule: None) -> Iterator[Outcome]:
        """Evaluate every rule once, and yield at least one outcome of each; ``before`` is called with each one that is
        not suppressed. A UserError of a rule is raised; one that fails otherwise is skipped.
        """
        for rule in self.rules:
            cause = suppressed_by(rule, self._found())
            if cause is not None:
                yield Skipped(rule.code, f"would follow from {cause}")
                continue
            before(rule)
            try:
                outcomes = _as_list(rule.evaluate(subject)) or [Skipped(rule.code, "nothing to check")]
            except UserError:
                raise
            except Exception as error:  # a stranger's network may not bear it; the other rules still can
                reason = " ".join(str(error).split())[:120]
                outcomes = [Skipped(rule.code, f"could not be checked: {type(error).__name__}: {reason}")]
            for outcome in outcomes:
                self._record(outcome)
                yield outcome

    def evaluate(self, subject: Subject) -> list[Finding]:
        """What is new since the last call, causes first. Of symptoms, which follow from each other, a fault also
        suppresses those that come later in the list. No rule can end a run: one that fails is left out from then on.
        """
        new: list[Finding] = []
        for rule in list(self.rules):
            if rule.code in self.faults or suppressed_by(rule, self._found()) or self._follows_a_symptom(rule):
                continue
            try:
                outcomes = _as_list(rule.evaluate(subject))
            except Exception as error:
                self.rules.remove(rule)
                warnings.warn(f"The rule {rule.code} failed and is left out: {error!r}", stacklevel=2)
                continue
            for outcome in outcomes:
                if isinstance(outcome, Finding) and (outcome.is_fault or outcome.code not in self.notes):
                    self._record(outcome)
                    new.append(outcome)
        return new

    def _found(self) -> list[Rule[Subject]]:
        return [rule for rule in self.rules if rule.code in self.faults]

    def _follows_a_symptom(self, rule: Rule[Subject]) -> bool:
        earlier = self.rules[: self.rules.index(rule)]
        return rule.level == Level.SYMPTOM and any(r.level == Level.SYMPTOM and r.code in self.faults for r in earlier)

    def _record(self, outcome: Outcome) -> None:
        if isinstance(outcome, Finding):
            (self.faults if outcome.is_fault else self.notes).append(outcome.code)


def _as_list(outcome: Outcome | list[Outcome] | None) -> list[Outcome]:
    if outcome is None:
        return []
    return outcome if isinstance(outcome, list) else [outcome]
