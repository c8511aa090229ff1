"""The rules on a run while it trains."""

from __future__ import annotations

from workbench.findings.engine import Rule
from workbench.findings.history import History
from workbench.findings.rules import adversarial, gradients, losses, rate, units, weights, wiring


def training_rules() -> list[Rule[History]]:
    """One of each; among symptoms, a rule suppresses those behind it."""
    return [
        wiring.GradientsNotCleared(),
        wiring.ParametersUnchanged(),
        wiring.LabelsSwapped(),
        wiring.DiscriminatorLeaks(),
        adversarial.AdversarialImbalance(),
        weights.RegularizationDominates(),
        rate.LearningRateHigh(),
        rate.LearningRateLow(),
        weights.WeightsAbnormal(),
        gradients.ExplodingGradients(),
        gradients.NonfiniteLoss(),
        units.DeadUnits(),
        units.SaturatedUnits(),
        gradients.VanishingGradients(),
        units.ActivationsOffCenter(),
        adversarial.ModeCollapse(),
        adversarial.DiscriminatorInert(),
        adversarial.DiscriminatorOverfits(),
        adversarial.DiscriminatorTooStrong(),
        losses.LossSurge(),
        losses.LossOscillates(),
        losses.Overfitting(),
        losses.MetricDisagrees(),
        losses.LossFlat(),
    ]
