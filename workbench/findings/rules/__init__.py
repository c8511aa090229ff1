"""The rules on a run while it trains."""

from __future__ import annotations

from workbench.findings.progress import TrainingRule
from workbench.findings.rules import adversarial, layers, losses, rate, wiring

RULES = (
    wiring.GradientsNotCleared,
    wiring.ParametersUnchanged,
    wiring.LabelsSwapped,
    wiring.DiscriminatorLeaks,
    adversarial.AdversarialImbalance,
    layers.RegularizationDominates,
    rate.LearningRateHigh,
    rate.LearningRateLow,
    layers.WeightsAbnormal,
    layers.ExplodingGradients,
    layers.NonfiniteLoss,
    layers.DeadUnits,
    layers.SaturatedUnits,
    layers.VanishingGradients,
    layers.ActivationsOffCenter,
    adversarial.ModeCollapse,
    adversarial.DiscriminatorInert,
    adversarial.DiscriminatorOverfits,
    adversarial.DiscriminatorTooStrong,
    losses.LossSurge,
    losses.LossOscillates,
    losses.Overfitting,
    losses.MetricDisagrees,
    losses.LossFlat,
)
"""Among symptoms, a rule suppresses those behind it."""


def training_rules() -> list[TrainingRule]:
    """One of each."""
    return [rule() for rule in RULES]
