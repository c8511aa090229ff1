"""What a check before training is, and in which order checks speak: a cause is named, what follows from it is not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.errors import UserError
from workbench.findings.finding import Finding
from workbench.findings.rule import Level, Rule

if TYPE_CHECKING:
    from workbench.findings.checks.subject import Subject


@dataclass(frozen=True)
class Passed:
    """A check that found nothing.

    Attributes:
        code: What was looked for.
        value: What was measured.
        limit: What it kept to.
    """

    code: str
    value: float | str
    limit: float | str


@dataclass(frozen=True)
class Skipped:
    """A check that was not made.

    Attributes:
        code: What would have been looked for.
        reason: Why not, in a few words.
    """

    code: str
    reason: str


Outcome = Finding | Passed | Skipped


class Check(Rule["Subject"]):
    """One thing that can be wrong before the first step. A check of your own: inherit, write ``look``, list it.

    Attributes:
        code: The finding's code, which is a section of docs/faults.md.
        floor: Where the fault sits; a SYMPTOM is silent after any fault further down that ``harms_learning``.
        follows: Codes of the faults that this one would follow from.
        harms_learning: Whether a fault of this kind shows in how a network learns.
    """

    harms_learning: ClassVar[bool] = True

    @abstractmethod
    def look(self, seen: Subject) -> Outcome:
        """The finding, or what was measured where all is well, or why nothing could be."""

    def passed(self, value: float | str, limit: float | str) -> Passed:
        """All is well."""
        return Passed(self.code, value, limit)

    def skipped(self, reason: str) -> Skipped:
        """Nothing could be measured."""
        return Skipped(self.code, reason)


def examine(
    checks: Iterable[Check], subject: Subject, say: Callable[[Check], None] = lambda check: None
) -> Iterator[Outcome]:
    """Make every check that is not explained by a fault found before it.

    Args:
        checks: In any order; data first, then wiring, then what would follow from either.
        subject: What is looked at.
        say: Called before each check that is made.

    Yields:
        One outcome for each check.
    """
    faults: dict[str, Check] = {}
    for check in sorted(checks, key=lambda one: one.floor):
        cause = _cause(check, faults)
        if cause is not None:
            yield Skipped(check.code, f"would follow from {cause}")
            continue
        say(check)
        try:
            outcome: Outcome = check.look(subject)
        except UserError:
            raise
        except Exception as error:  # somebody's own network may not bear to be looked at: the other checks go on
            reason = " ".join(str(error).split())[:120]
            outcome = Skipped(check.code, f"could not be made: {type(error).__name__}: {reason}")
        if isinstance(outcome, Finding) and outcome.is_fault:
            faults[check.code] = check
        yield outcome


def _cause(check: Check, faults: dict[str, Check]) -> str | None:
    for code, found in faults.items():
        if code in check.follows:
            return code
        if check.floor == Level.SYMPTOM and found.floor < Level.SYMPTOM and found.harms_learning:
            return code
    return None
