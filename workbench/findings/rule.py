"""The former names of a rule's parts, for the checks until they use those of engine.py."""

from __future__ import annotations

from typing import Any

from workbench.findings import engine
from workbench.findings.engine import Level, Subject

__all__ = ["Level", "Rule"]


class Rule(engine.Rule[Subject]):
    """A rule with ``floor``, ``follows`` and ``look``."""

    follows: frozenset[str] = frozenset()

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.level, cls.implied_by = getattr(cls, "floor", None), cls.follows

    def evaluate(self, subject: Subject) -> Any:
        return self.look(subject)
