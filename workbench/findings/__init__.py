"""Rules that turn measurements into named findings; they know nothing of Lightning, and need no torch."""

from workbench.findings.engine import Finding, Level, Rule, RuleEngine, append_findings, read_findings
from workbench.findings.history import Activation, History, ModelInfo, Parameter, Series, Setting
from workbench.findings.rules import training_rules
