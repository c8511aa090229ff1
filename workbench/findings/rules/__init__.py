"""The rules on a run while it trains."""

from __future__ import annotations

from workbench.findings.engine import Level
from workbench.findings.progress import TrainingRule
from workbench.findings.rules import adversarial, layers, losses, rate, wiring

WILD = frozenset({"learning-rate-high"})
BROKEN = WILD | {"regularization-dominates", "exploding-gradients", "nonfinite-loss"}

RULES = (
    TrainingRule("gradients-not-cleared", wiring.gradients_not_cleared, Level.WIRING),
    TrainingRule("parameters-unchanged", wiring.parameters_unchanged, Level.WIRING, implied_by=BROKEN),
    TrainingRule("labels-swapped", wiring.labels_swapped, Level.WIRING, steps=30, implied_by=WILD),
    TrainingRule("discriminator-leaks", wiring.discriminator_leaks, Level.WIRING),
    TrainingRule("adversarial-imbalance", adversarial.imbalance, Level.RATE, steps=10, implied_by=WILD),
    TrainingRule("regularization-dominates", layers.regularization_dominates, Level.RATE, steps=30),
    TrainingRule("learning-rate-high", rate.learning_rate_high, Level.RATE),
    TrainingRule("learning-rate-low", rate.learning_rate_low, Level.RATE),
    TrainingRule("weights-abnormal", layers.weights_abnormal, steps=20),
    TrainingRule("exploding-gradients", layers.exploding_gradients, steps=20),
    TrainingRule("nonfinite-loss", losses.nonfinite_loss),
    TrainingRule("dead-units", layers.dead_units),
    TrainingRule("saturated-units", layers.saturated_units),
    TrainingRule("vanishing-gradients", layers.vanishing_gradients, steps=40),
    TrainingRule("activations-off-centre", layers.activations_off_center, steps=50),
    TrainingRule("mode-collapse", adversarial.mode_collapse, steps=100),
    TrainingRule("discriminator-inert", adversarial.discriminator_inert),
    TrainingRule("discriminator-overfits", adversarial.discriminator_overfits, steps=100),
    TrainingRule("discriminator-too-strong", adversarial.discriminator_too_strong, steps=100),
    TrainingRule("loss-surge", losses.loss_surge, implied_by=frozenset({"loss-oscillates"})),
    TrainingRule("loss-oscillates", losses.loss_oscillates),
    TrainingRule("overfitting", losses.overfitting),
    TrainingRule("metric-disagrees", losses.metric_disagrees),
    TrainingRule("loss-flat", losses.loss_flat, steps=150),
)
"""Among symptoms, a rule suppresses those behind it."""


def training_rules() -> list[TrainingRule]:
    return list(RULES)
