"""Checks before the first step: what is wrong with data, wiring and learning, each a class and a section of the docs.

A check of your own: inherit from :class:`~workbench.findings.checks.check.Check`, and add it to ``all_checks``.
"""

from __future__ import annotations

from workbench.findings.checks.batches import (
    BatchRepeated,
    InputConstant,
    InputNonfinite,
    InputRange,
)
from workbench.findings.checks.check import Check, Outcome, Passed, Skipped, examine
from workbench.findings.checks.entrance import InputNotCenterd
from workbench.findings.checks.images import (
    DuplicateImages,
    OutlierImages,
    SplitLeak,
    StatisticsNotFromTrain,
    UnreadableImage,
)
from workbench.findings.checks.learning import CannotOverfit, InitialLoss, LossNotMean
from workbench.findings.checks.pairs import PairMisaligned, TargetGray
from workbench.findings.checks.pretrained import PretrainedRange
from workbench.findings.checks.structure import MissingNonlinearity, OutputRange
from workbench.findings.checks.subject import Subject
from workbench.findings.checks.trained import FrozenParameters, ParametersNotOptimized
from workbench.findings.checks.weights import WeightsConstant, WeightsScale
from workbench.findings.checks.wiring import BatchMixing, EvalNotDeterministic, InputIgnored

__all__ = ["Check", "Outcome", "Passed", "Skipped", "Subject", "all_checks", "examine"]


def all_checks() -> list[Check]:
    """One of each; within a floor, causes before what follows from them."""
    return [
        UnreadableImage(),
        InputNonfinite(),
        InputRange(),
        InputConstant(),
        StatisticsNotFromTrain(),
        InputNotCenterd(),
        PretrainedRange(),
        BatchRepeated(),
        DuplicateImages(),
        SplitLeak(),
        OutlierImages(),
        PairMisaligned(),
        TargetGray(),
        WeightsConstant(),
        WeightsScale(),
        EvalNotDeterministic(),
        BatchMixing(),
        OutputRange(),
        InputIgnored(),
        MissingNonlinearity(),
        LossNotMean(),
        FrozenParameters(),
        ParametersNotOptimized(),
        InitialLoss(),
        CannotOverfit(),
    ]
