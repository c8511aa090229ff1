"""The rules that look at a run while it trains, causes before what follows from them."""

from __future__ import annotations

from project.diagnosis.history import History
from project.diagnosis.rule import Rule
from project.diagnosis.rules.adversarial import (
    AdversarialImbalance,
    DiscriminatorInert,
    DiscriminatorOverfits,
    DiscriminatorTooStrong,
    ModeCollapse,
)
from project.diagnosis.rules.gradients import ExplodingGradients, NonfiniteLoss, VanishingGradients
from project.diagnosis.rules.losses import LossFlat, LossOscillates, LossSurge, MetricDisagrees, Overfitting
from project.diagnosis.rules.rate import LearningRateHigh, LearningRateLow
from project.diagnosis.rules.units import ActivationsOffCentre, DeadUnits, SaturatedUnits
from project.diagnosis.rules.weights import RegularisationDominates, WeightsAbnormal
from project.diagnosis.rules.wiring import DiscriminatorLeaks, GradientsNotCleared, LabelsSwapped, ParametersUnchanged


def training_rules() -> list[Rule[History]]:
    """One of each; what a rule names keeps those behind it on the same floor silent, where they are symptoms."""
    return [
        GradientsNotCleared(),
        ParametersUnchanged(),
        LabelsSwapped(),
        DiscriminatorLeaks(),
        AdversarialImbalance(),
        RegularisationDominates(),
        LearningRateHigh(),
        LearningRateLow(),
        ExplodingGradients(),
        NonfiniteLoss(),
        DeadUnits(),
        SaturatedUnits(),
        VanishingGradients(),
        WeightsAbnormal(),
        ActivationsOffCentre(),
        ModeCollapse(),
        DiscriminatorInert(),
        DiscriminatorTooStrong(),
        DiscriminatorOverfits(),
        LossSurge(),
        LossOscillates(),
        Overfitting(),
        MetricDisagrees(),
        LossFlat(),
    ]
