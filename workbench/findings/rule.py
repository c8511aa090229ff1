"""What a rule is, and in which order rules speak: a cause is named, and what follows from it is not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import ClassVar, Generic, TypeVar

from workbench.findings.finding import FAULTS_PAGE, Finding

Evidence = TypeVar("Evidence")
"""What a rule looks at: a :class:`~workbench.findings.history.History` while training."""


class Level(IntEnum):
    """Where a fault sits. What is wrong further down shows further up as well, so the lowest is the cause."""

    DATA = 0
    WIRING = 1
    RATE = 2
    SYMPTOM = 3


class Rule(ABC, Generic[Evidence]):
    """One thing that can be wrong, and how it is known. A rule of your own: inherit, and write ``look``.

    Attributes:
        code: The finding's code, which is a section of docs/faults.md.
        floor: Where the fault sits.
        follows: Codes of the faults that this one would follow from, whatever their floor: after one of them was named,
            the rule is silent.
    """

    code: ClassVar[str]
    floor: ClassVar[Level]
    follows: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def look(self, seen: Evidence) -> Finding | None:
        """The finding, or None when all is well or there is not enough evidence yet."""

    def fault(self, step: int, where: str, value: float | str, limit: float | str, advice: str) -> Finding:
        """A finding that says: training is being harmed."""
        return self._finding("fault", step, where, value, limit, advice)

    def note(self, step: int, where: str, value: float | str, limit: float | str, advice: str) -> Finding:
        """A finding that says: worth a look."""
        return self._finding("note", step, where, value, limit, advice)

    def _finding(self, severity: str, step: int, where: str, value: float | str, limit: float | str, advice: str):
        advice = f"{advice} See {FAULTS_PAGE}#{self.code}."
        return Finding(self.code, severity, step, where, value, limit, advice)


class RuleEngine(Generic[Evidence]):
    """Lets the rules look, again and again, and says everything once.

    A named fault silences the rules of all higher floors: what they would see follows from it. Among symptoms, which
    follow from each other, it silences those that come later in the list. And it silences the rules that say so
    themselves: weights that were thrown about by a rate may well leave tensors that get no gradient any more.

    Args:
        rules: In the order in which causes come before what follows from them; sorted by floor here.
    """

    def __init__(self, rules: Iterable[Rule[Evidence]]) -> None:
        self.rules: Sequence[Rule[Evidence]] = sorted(rules, key=lambda rule: rule.floor)
        self.faults: list[str] = []
        self.notes: list[str] = []

    def look(self, seen: Evidence) -> list[Finding]:
        """What is new: causes first."""
        found: list[Finding] = []
        for position, rule in enumerate(self.rules):
            if rule.code in self.faults or self._silenced(position):
                continue
            finding = rule.look(seen)
            if finding is None or (not finding.is_fault and rule.code in self.notes):
                continue
            (self.faults if finding.is_fault else self.notes).append(rule.code)
            found.append(finding)
        return found

    def _silenced(self, position: int) -> bool:
        rule = self.rules[position]
        if not rule.follows.isdisjoint(self.faults):
            return True
        for earlier in self.rules[:position]:
            if earlier.code in self.faults and (earlier.floor < rule.floor or rule.floor == Level.SYMPTOM):
                return True
        return False
