"""The rules that look at a run while it trains, causes before what follows from them."""

from __future__ import annotations

from workbench.findings.history import History
from workbench.findings.rule import Rule
from workbench.findings.rules.adversarial import (
    AdversarialImbalance,
    DiscriminatorInert,
    DiscriminatorOverfits,
    DiscriminatorTooStrong,
    ModeCollapse,
)
from workbench.findings.rules.gradients import ExplodingGradients, NonfiniteLoss, VanishingGradients
from workbench.findings.rules.losses import LossFlat, LossOscillates, LossSurge, MetricDisagrees, Overfitting
from workbench.findings.rules.rate import LearningRateHigh, LearningRateLow
from workbench.findings.rules.units import ActivationsOffCenter, DeadUnits, SaturatedUnits
from workbench.findings.rules.weights import RegularisationDominates, WeightsAbnormal
from workbench.findings.rules.wiring import DiscriminatorLeaks, GradientsNotCleared, LabelsSwapped, ParametersUnchanged


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
        WeightsAbnormal(),
        ExplodingGradients(),
        NonfiniteLoss(),
        DeadUnits(),
        SaturatedUnits(),
        VanishingGradients(),
        ActivationsOffCenter(),
        ModeCollapse(),
        DiscriminatorInert(),
        DiscriminatorOverfits(),
        DiscriminatorTooStrong(),
        LossSurge(),
        LossOscillates(),
        Overfitting(),
        MetricDisagrees(),
        LossFlat(),
    ]
