"""Rules that turn measurements into named findings; they know nothing of Lightning, and need no torch."""

from workbench.findings.engine import Level, Rule, RuleEngine
from workbench.findings.finding import Finding
from workbench.findings.history import Activation, Facts, History, Knob, Parameter
from workbench.findings.rules import training_rules
from workbench.findings.series import Series

__all__ = [
    "Activation",
    "Facts",
    "Finding",
    "History",
    "Knob",
    "Level",
    "Parameter",
    "Rule",
    "RuleEngine",
    "Series",
    "training_rules",
]
