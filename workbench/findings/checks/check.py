"""What a check before training is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from workbench.findings.engine import Level, Outcome, Passed, Rule, Skipped
from workbench.findings.finding import Finding

if TYPE_CHECKING:
    from workbench.findings.checks.context import CheckContext

__all__ = ["Check", "Level", "Outcome", "Passed", "Skipped", "listed"]


class Check(Rule["CheckContext"]):
    """One thing that can be wrong before the first step: inherit, write ``evaluate``, list it in ``checks()``."""

    advice: ClassVar[str] = ""  # what to do

    @abstractmethod
    def evaluate(self, context: CheckContext) -> Outcome: ...

    def passed(self, value: float | str, limit: float | str) -> Passed:
        return Passed(self.code, value, limit)

    def skipped(self, reason: str) -> Skipped:
        return Skipped(self.code, reason)

    def found(self, is_fault: bool, where: str, value: float | str, limit: float | str, advice: str = "") -> Finding:
        """A fault, or else a note."""
        return self.finding(is_fault, 0, where, value, limit, advice or self.advice)

    def judge(self, value: float, limit: float, where: str, advice: str = "") -> Outcome:
        """A fault above the limit."""
        return self.passed(value, limit) if value <= limit else self.found(True, where, value, limit, advice)


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
