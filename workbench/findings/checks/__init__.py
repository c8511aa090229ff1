"""Checks before the first step, for any module and data module: what is wrong with data, wiring and learning.

``datamodule.checks()`` brings further ones; one with a code that stands here replaces its namesake.
"""

from __future__ import annotations

from collections.abc import Iterable

from workbench.findings.checks import data, learning, weights, wiring
from workbench.findings.checks.context import CheckContext
from workbench.findings.engine import Level, Rule

RANDOM = {"eval-not-deterministic"}
BROKEN = {"input-nonfinite", "input-constant"}
UNSURE = BROKEN | RANDOM
UNUSABLE = data.UNUSABLE_INPUT | RANDOM

CHECKS = (
    Rule("input-nonfinite", data.input_nonfinite, Level.DATA),
    Rule("input-constant", data.input_constant, Level.DATA, {"input-nonfinite"}),
    Rule("input-not-centred", data.input_not_centered, Level.DATA, data.UNUSABLE_INPUT | {"statistics-not-from-train"}),
    Rule("batch-repeated", data.batch_repeated, Level.DATA, {"input-constant"}),
    Rule("weights-constant", weights.weights_constant, Level.WIRING),
    Rule("weights-scale", weights.weights_scale, Level.WIRING, {"weights-constant"}),
    Rule("eval-not-deterministic", wiring.eval_not_deterministic, Level.WIRING, BROKEN),
    Rule("batch-mixing", wiring.batch_mixing, Level.WIRING, UNSURE),
    Rule("output-range", wiring.output_range, Level.WIRING, UNUSABLE),
    Rule("input-ignored", wiring.input_ignored, Level.WIRING, UNSURE | {"weights-constant", "output-range"}),
    Rule("missing-nonlinearity", wiring.missing_nonlinearity, Level.WIRING),
    Rule("loss-not-mean", learning.loss_not_mean, Level.WIRING, UNUSABLE | {"batch-mixing"}),
    Rule("frozen-parameters", weights.frozen_parameters, Level.WIRING),
    Rule("parameters-not-optimized", weights.parameters_not_optimized, Level.WIRING),
    Rule("initial-loss", learning.initial_loss, Level.SYMPTOM),
    Rule("cannot-overfit", learning.cannot_overfit, Level.SYMPTOM, {"initial-loss", "unreadable-image"}),
)


def all_checks(further: Iterable[Rule] = ()) -> list[Rule]:
    """One of each, with those that a data module brings; causes before what they imply."""
    further = list(further)
    codes = {check.code for check in further}
    waiting = further + [check for check in CHECKS if check.code not in codes]
    ordered: list[Rule] = []
    while waiting:
        codes = {check.code for check in waiting}
        ready = (number for number, check in enumerate(waiting) if not check.implied_by & (codes - {check.code}))
        ordered.append(waiting.pop(next(ready, 0)))
    return ordered
