"""What a check before training is, and how the checks of a task run on the engine of all findings."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from workbench.findings.engine import Level, Outcome, Passed, Rule, RuleEngine, Skipped
from workbench.findings.finding import Finding

if TYPE_CHECKING:
    from workbench.findings.checks.context import CheckContext

__all__ = ["Check", "Level", "Outcome", "Passed", "Skipped", "leaves", "listed", "run_checks"]
SETTING = re.compile(r" ?\[([\w.]+): ([^\]]+)\]")


class Check(Rule["CheckContext"]):
    """One thing that can be wrong before the first step: inherit, write ``evaluate``, list it in ``checks()``."""

    advice: ClassVar[str] = ""
    """What to do. ``[key: value]`` in it becomes the configuration's full key, or goes where there is none."""

    @abstractmethod
    def evaluate(self, context: CheckContext) -> Outcome: ...

    def found(self, is_fault: bool, where: str, value: float | str, limit: float | str, advice: str = "") -> Finding:
        """A fault, or else a note."""
        return self._finding("fault" if is_fault else "note", 0, where, value, limit, advice or self.advice)

    def judge(self, value: float, limit: float, where: str, advice: str = "") -> Outcome:
        """A fault above the limit."""
        return self.passed(value, limit) if value <= limit else self.found(True, where, value, limit, advice)


def run_checks(
    checks: Iterable[Check], context: CheckContext, before: Callable[[Check], None] = lambda check: None
) -> Iterator[Outcome]:
    """Run all checks that no fault found earlier explains; ``before`` is called with each of them."""
    keys = [key for key, _ in leaves(context.config)]

    def resolve(match: re.Match) -> str:
        full = next((key for key in keys if f".{key}".endswith(f".{match[1]}")), None)
        return f" ({full}: {match[2]})" if full else ""

    for outcome in RuleEngine(checks).run(context, before):
        is_finding = isinstance(outcome, Finding)
        yield replace(outcome, advice=SETTING.sub(resolve, outcome.advice)) if is_finding else outcome


def leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and plain values of a nested configuration."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), tree


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
