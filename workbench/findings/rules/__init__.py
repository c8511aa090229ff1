"""The rules on a run while it trains."""

from __future__ import annotations

from workbench.findings.engine import Level, Rule
from workbench.findings.rules import adversarial, layers, losses, wiring

WILD = {"learning-rate-high"}
BROKEN = WILD | {"regularization-dominates", "exploding-gradients", "nonfinite-loss"}

RULES = (
    Rule("gradients-not-cleared", wiring.gradients_not_cleared, Level.WIRING),
    Rule("parameters-unchanged", wiring.parameters_unchanged, Level.WIRING, BROKEN),
    Rule("labels-swapped", wiring.labels_swapped, Level.WIRING, WILD, steps=30),
    Rule("discriminator-leaks", wiring.discriminator_leaks, Level.WIRING),
    Rule("adversarial-imbalance", adversarial.imbalance, Level.RATE, WILD, steps=10),
    Rule("regularization-dominates", layers.regularization_dominates, Level.RATE, steps=30),
    Rule("learning-rate-high", losses.learning_rate_high, Level.RATE),
    Rule("learning-rate-low", losses.learning_rate_low, Level.RATE),
    Rule("weights-abnormal", layers.weights_abnormal, steps=20),
    Rule("exploding-gradients", layers.exploding_gradients, steps=20),
    Rule("nonfinite-loss", losses.nonfinite_loss),
    Rule("dead-units", layers.dead_units),
    Rule("saturated-units", layers.saturated_units),
    Rule("vanishing-gradients", layers.vanishing_gradients, steps=40),
    Rule("activations-off-centre", layers.activations_off_center, steps=50),
    Rule("mode-collapse", adversarial.mode_collapse, steps=100),
    Rule("discriminator-inert", adversarial.discriminator_inert),
    Rule("discriminator-overfits", adversarial.discriminator_overfits, steps=100),
    Rule("discriminator-too-strong", adversarial.discriminator_too_strong, steps=100),
    Rule("loss-surge", losses.loss_surge, Level.SYMPTOM, {"loss-oscillates"}),
    Rule("loss-oscillates", losses.loss_oscillates),
    Rule("overfitting", losses.overfitting),
    Rule("metric-disagrees", losses.metric_disagrees),
    Rule("loss-flat", losses.loss_flat, steps=150),
)
"""Among symptoms, a rule suppresses those behind it."""


def training_rules() -> list[Rule]:
    return list(RULES)
