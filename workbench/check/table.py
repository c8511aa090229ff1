"""The table that ``check`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.findings.checks import Outcome, Passed, Skipped
from workbench.findings.finding import Finding

STYLES = {"passed": "green", "note": "yellow", "fault": "bold red", "skipped": "dim"}


def print_table(outcomes: Sequence[Outcome], facts: dict[str, object], title: str) -> None:
    """Print what every check found, then the advice of each finding, then where things are.

    Args:
        outcomes: In the order of the checks.
        facts: Lines to print below.
        title: Of the table.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in ("", "check", "figure", "limit"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("", "check"))
    for outcome in outcomes:
        word = verdict(outcome)
        figure, limit = (outcome.reason, "") if isinstance(outcome, Skipped) else (outcome.value, outcome.limit)
        style = STYLES[word]
        table.add_row(f"[{style}]{word}[/]", outcome.code, escape(short(figure)), escape(short(limit)))
    console = Console(soft_wrap=True)
    Console().print(table)
    for finding in sorted((o for o in outcomes if isinstance(o, Finding)), key=lambda f: not f.is_fault):
        console.print(
            f"[{STYLES[finding.severity]}]{finding.severity}[/] [bold]{finding.code}[/]: {escape(finding.where)}",
            highlight=False,
        )
        console.print(f"  {finding.advice}", highlight=False, markup=False)
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {value}", highlight=False, markup=False)


def verdict(outcome: Outcome) -> str:
    """passed, skipped, note or fault."""
    if isinstance(outcome, Passed):
        return "passed"
    return "skipped" if isinstance(outcome, Skipped) else outcome.severity


def short(value: float | str) -> str:
    """A figure in three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
