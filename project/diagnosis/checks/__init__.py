"""Checks before the first step: what is wrong with data, wiring and learning, each a class and a section of the docs.

A check of your own: inherit from :class:`~project.diagnosis.checks.check.Check`, and add it to ``all_checks``.
"""

from __future__ import annotations

from project.diagnosis.checks.batches import (
    BatchRepeated,
    InputConstant,
    InputNonfinite,
    InputNotCentred,
    InputRange,
)
from project.diagnosis.checks.check import Check, Outcome, Passed, Skipped, examine
from project.diagnosis.checks.images import (
    DuplicateImages,
    OutlierImages,
    SplitLeak,
    StatisticsNotFromTrain,
    UnreadableImage,
)
from project.diagnosis.checks.learning import CannotOverfit, InitialLoss, LossNotMean
from project.diagnosis.checks.pairs import PairMisaligned, TargetGrey
from project.diagnosis.checks.subject import Subject
from project.diagnosis.checks.weights import FrozenParameters, ParametersNotOptimised, WeightsConstant, WeightsScale
from project.diagnosis.checks.wiring import (
    BatchMixing,
    EvalNotDeterministic,
    InputIgnored,
    MissingNonlinearity,
    OutputRange,
)

__all__ = ["Check", "Outcome", "Passed", "Skipped", "Subject", "all_checks", "examine"]


def all_checks() -> list[Check]:
    """One of each; within a floor, causes before what follows from them."""
    return [
        UnreadableImage(),
        InputNonfinite(),
        InputRange(),
        InputConstant(),
        StatisticsNotFromTrain(),
        InputNotCentred(),
        BatchRepeated(),
        DuplicateImages(),
        SplitLeak(),
        OutlierImages(),
        PairMisaligned(),
        TargetGrey(),
        WeightsConstant(),
        WeightsScale(),
        EvalNotDeterministic(),
        BatchMixing(),
        InputIgnored(),
        MissingNonlinearity(),
        OutputRange(),
        LossNotMean(),
        FrozenParameters(),
        ParametersNotOptimised(),
        InitialLoss(),
        CannotOverfit(),
    ]
