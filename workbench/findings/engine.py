"""The engine behind all findings: evaluates rules in order of cause, and suppresses what a named fault implies."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from workbench.errors import UserError
from workbench.findings.finding import Finding

Subject = TypeVar("Subject")
"""What a rule evaluates: a History while training, a CheckContext before the first step."""


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
    failed: bool = False  # it raised an exception


Outcome = Finding | Passed | Skipped


class Level(IntEnum):
    """Where a fault sits. What is wrong at a lower level shows at the higher ones too, so the lowest is the cause."""

    DATA = 0
    WIRING = 1
    RATE = 2
    SYMPTOM = 3


class Rule(ABC, Generic[Subject]):
    """One thing that can be wrong, and how it is recognized. To add one: inherit, and write ``evaluate``."""

    code: str  # the finding's code, a section of docs/faults.md
    level: Level
    implied_by: frozenset[str] = frozenset()  # codes of faults that explain this one, whatever their level
    harms_learning: bool = True  # whether it shows in how a network learns, and may suppress higher levels

    @abstractmethod
    def evaluate(self, subject: Subject) -> Outcome | None:
        """What was found; None where all is well or there is not enough evidence yet."""

    def finding(
        self, is_fault: bool, step: int, where: str, value: float | str, limit: float | str, advice: str
    ) -> Finding:
        """A fault, or else a note."""
        advice = f"{advice} See docs/faults.md#{self.code}."
        return Finding(self.code, "fault" if is_fault else "note", step, where, value, limit, advice)


class RuleEngine(Generic[Subject]):
    """Evaluates rules by level, causes first, and reports each finding once.

    Data and wiring are always evaluated; rates and symptoms only while nothing at a lower level is wrong. Symptoms
    follow from each other: a fault also suppresses those later in the list.

    Args:
        rules: Within a level, causes before what follows from them.
    """

    def __init__(self, rules: Iterable[Rule[Subject]]) -> None:
        self.rules = sorted(rules, key=lambda rule: rule.level)
        self.faults: list[str] = []  # codes that were reported as faults; they suppress what follows from them
        self.notes: list[str] = []  # codes that were reported as notes, each of which may still become a fault

    def run(self, subject: Subject, before: Callable[[Rule[Subject]], None] = lambda rule: None) -> Iterator[Outcome]:
        """Evaluate every rule that has not reported a fault yet, and yield its outcome; ``before`` is called with each
        one that is not suppressed. A UserError is raised; a rule that fails otherwise is left out from then on.
        """
        for rule in [rule for rule in self.rules if rule.code not in self.faults]:
            cause = self._cause_of(rule)
            if cause is not None:
                yield Skipped(rule.code, f"would follow from {cause}")
                continue
            before(rule)
            try:
                outcome = rule.evaluate(subject) or Skipped(rule.code, "nothing to check")
            except UserError:
                raise
            except Exception as error:  # a stranger's network may not bear it; the other rules still can
                self.rules.remove(rule)
                reason = " ".join(str(error).split())[:120]
                outcome = Skipped(rule.code, f"could not be checked: {type(error).__name__}: {reason}", failed=True)
            if isinstance(outcome, Finding):
                reported = self.faults if outcome.is_fault else self.notes
                if outcome.code not in reported:
                    reported.append(outcome.code)
            yield outcome

    def evaluate(self, subject: Subject) -> list[Finding]:
        """What is new since the last call, causes first."""
        new, notes = [], set(self.notes)
        for outcome in self.run(subject):
            if isinstance(outcome, Finding) and (outcome.is_fault or outcome.code not in notes):
                new.append(outcome)
            elif isinstance(outcome, Skipped) and outcome.failed:
                warnings.warn(f"The rule {outcome.code} {outcome.reason}; it is left out.", stacklevel=2)
        return new

    def _cause_of(self, rule: Rule[Subject]) -> str | None:
        """The code of the first reported fault that explains whatever the rule would find."""
        place = self.rules.index(rule)
        for number, fault in enumerate(self.rules):
            below = fault.harms_learning and fault.level < rule.level and rule.level >= Level.RATE
            earlier = fault.level == rule.level == Level.SYMPTOM and number < place
            if fault.code in self.faults and (below or earlier or fault.code in rule.implied_by):
                return fault.code
        return None
