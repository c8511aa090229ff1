"""Checks before the first step: what is wrong with data, wiring and learning, each a class and a section of the docs.

A check of your own: inherit from :class:`~project.diagnosis.checks.check.Check`, and add it to ``all_checks``.
"""

from __future__ import annotations

from project.diagnosis.checks.batches import (
    BatchRepeated,
    InputConstant,
    InputNonfinite,
    InputRange,
)
from project.diagnosis.checks.check import Check, Outcome, Passed, Skipped, examine
from project.diagnosis.checks.entrance import InputNotCentred
from project.diagnosis.checks.images import (
    DuplicateImages,
    OutlierImages,
    SplitLeak,
    StatisticsNotFromTrain,
    UnreadableImage,
)
from project.diagnosis.checks.learning import CannotOverfit, InitialLoss, LossNotMean
from project.diagnosis.checks.pairs import PairMisaligned, TargetGrey
from project.diagnosis.checks.pretrained import PretrainedRange
from project.diagnosis.checks.structure import MissingNonlinearity, OutputRange
from project.diagnosis.checks.subject import Subject
from project.diagnosis.checks.trained import FrozenParameters, ParametersNotOptimised
from project.diagnosis.checks.weights import WeightsConstant, WeightsScale
from project.diagnosis.checks.wiring import BatchMixing, EvalNotDeterministic, InputIgnored

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
        PretrainedRange(),
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
        OutputRange(),
        InputIgnored(),
        MissingNonlinearity(),
        LossNotMean(),
        FrozenParameters(),
        ParametersNotOptimised(),
        InitialLoss(),
        CannotOverfit(),
    ]
