"""Checks before the first step: what is wrong with data, wiring and learning, each a section of the docs.

These know nothing of images and work with any module and data module. ``datamodule.checks()`` brings further ones; one
with a code that stands here replaces its namesake.
"""

from __future__ import annotations

from collections.abc import Iterable

from workbench.findings.checks import data, learning, weights, wiring
from workbench.findings.checks.context import Check, CheckContext
from workbench.findings.engine import FunctionRule, Level, Rule

RANDOM = {"eval-not-deterministic"}
BROKEN = {"input-nonfinite", "input-constant"}
UNSURE = BROKEN | RANDOM
UNUSABLE = data.UNUSABLE_INPUT | RANDOM

CHECKS = (
    FunctionRule("input-nonfinite", data.input_nonfinite, Level.DATA),
    data.InputConstant(),
    data.InputNotCentered(),
    FunctionRule("batch-repeated", data.batch_repeated, Level.DATA, {"input-constant"}),
    FunctionRule("weights-constant", weights.weights_constant, Level.WIRING),
    FunctionRule("weights-scale", weights.weights_scale, Level.WIRING, {"weights-constant"}),
    FunctionRule("eval-not-deterministic", wiring.eval_not_deterministic, Level.WIRING, BROKEN),
    FunctionRule("batch-mixing", wiring.batch_mixing, Level.WIRING, UNSURE),
    FunctionRule("output-range", wiring.output_range, Level.WIRING, UNUSABLE),
    FunctionRule("input-ignored", wiring.input_ignored, Level.WIRING, UNSURE | {"weights-constant", "output-range"}),
    FunctionRule("missing-nonlinearity", wiring.missing_nonlinearity, Level.WIRING),
    FunctionRule("loss-not-mean", learning.loss_not_mean, Level.WIRING, UNUSABLE | {"batch-mixing"}),
    FunctionRule("frozen-parameters", weights.frozen_parameters, Level.WIRING),
    FunctionRule("parameters-not-optimized", weights.parameters_not_optimized, Level.WIRING),
    FunctionRule("initial-loss", learning.initial_loss, Level.SYMPTOM),
    learning.CannotOverfit(),
)
"""Those that a data module may extend are classes."""


def all_checks(further: Iterable[Check] = ()) -> list[Rule[CheckContext]]:
    """One of each, with those that a data module brings; causes before what they imply."""
    further = list(further)
    codes = {check.code for check in further}
    waiting = further + [check for check in CHECKS if check.code not in codes]
    ordered: list[Rule[CheckContext]] = []
    while waiting:
        codes = {check.code for check in waiting}
        ready = (number for number, check in enumerate(waiting) if not check.implied_by & (codes - {check.code}))
        ordered.append(waiting.pop(next(ready, 0)))
    return ordered
