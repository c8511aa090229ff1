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

__all__ = ["Check", "Level", "Outcome", "Passed", "Skipped", "listed", "run_checks"]
MAX_LISTED = 4
SETTING = re.compile(r" ?\[([\w.]+): ([^\]]+)\]")


class Check(Rule["CheckContext"]):
    """One thing that can be wrong before the first step. A check of your own: inherit, write ``evaluate``, and have
    the data module's ``checks()`` list it; one with the code of a built-in check replaces that.

    Attributes:
        advice: What to do. ``[key: value]`` in it becomes the configuration's full key, or goes where there is none.
    """

    advice: ClassVar[str] = ""

    @abstractmethod
    def evaluate(self, context: CheckContext) -> Outcome: ...

    def found(self, is_fault: bool, where: str, value: float | str, limit: float | str, advice: str = "") -> Finding:
        """A fault, or else a note."""
        return self._finding("fault" if is_fault else "note", 0, where, value, limit, advice or self.advice)


def run_checks(
    checks: Iterable[Check], context: CheckContext, before: Callable[[Check], None] = lambda check: None
) -> Iterator[Outcome]:
    """Run all checks that no fault found earlier explains; ``before`` is called with each of them."""
    for outcome in RuleEngine(checks).run(context, before):
        if isinstance(outcome, Finding):
            outcome = replace(
                outcome, advice=SETTING.sub(lambda match: _setting(context, *match.groups()), outcome.advice)
            )
        yield outcome


def _setting(context: CheckContext, key: str, value: str) -> str:
    for full, _ in leaves(context.config):
        if f".{full}".endswith(f".{key}"):
            return f" ({full}: {value})"
    return ""


def leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and plain values of a nested configuration."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), tree


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
