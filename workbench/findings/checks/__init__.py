"""Checks before the first step: what is wrong with data, wiring and learning, each a class and a section of the docs.

These know nothing of images and work with any module and data module. ``datamodule.checks()`` brings further ones; one
with a code that stands here replaces its namesake.
"""

from __future__ import annotations

from collections.abc import Iterable

from workbench.findings.checks import data, learning, weights, wiring
from workbench.findings.checks.context import Check, CheckContext, Outcome, Passed, Skipped

__all__ = ["Check", "CheckContext", "Outcome", "Passed", "Skipped", "all_checks"]

BUILT_IN = (
    *(data.InputNonfinite, data.InputConstant, data.InputNotCentered, data.BatchRepeated),
    *(weights.WeightsConstant, weights.WeightsScale),
    *(wiring.EvalNotDeterministic, wiring.BatchMixing, wiring.OutputRange, wiring.InputIgnored),
    *(wiring.MissingNonlinearity, learning.LossNotMean),
    *(weights.FrozenParameters, weights.ParametersNotOptimized),
    *(learning.InitialLoss, learning.CannotOverfit),
)


def all_checks(further: Iterable[Check] = ()) -> list[Check]:
    """One of each, with those that a data module brings; causes before what they imply."""
    further = list(further)
    codes = {check.code for check in further}
    waiting = further + [make() for make in BUILT_IN if make.code not in codes]
    ordered: list[Check] = []
    while waiting:
        codes = {check.code for check in waiting}
        ready = (number for number, check in enumerate(waiting) if not check.implied_by & (codes - {check.code}))
        ordered.append(waiting.pop(next(ready, 0)))
    return ordered
