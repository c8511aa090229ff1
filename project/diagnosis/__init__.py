"""Rules that turn measurements into named findings; they know nothing of Lightning, and need no torch."""

from project.diagnosis.finding import Finding
from project.diagnosis.history import Activation, Facts, History, Knob, Parameter
from project.diagnosis.rule import Floor, Judge, Rule
from project.diagnosis.rules import training_rules
from project.diagnosis.series import Series

__all__ = [
    "Activation",
    "Facts",
    "Finding",
    "Floor",
    "History",
    "Judge",
    "Knob",
    "Parameter",
    "Rule",
    "Series",
    "training_rules",
]
