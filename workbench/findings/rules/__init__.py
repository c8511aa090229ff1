"""The rules on a run while it trains."""

from __future__ import annotations

from workbench.findings.engine import FunctionRule, Level
from workbench.findings.history import History
from workbench.findings.rules import adversarial, layers, losses, wiring

WILD = {"learning-rate-high"}
BROKEN = WILD | {"regularization-dominates", "exploding-gradients", "nonfinite-loss"}

RULES = (
    FunctionRule("gradients-not-cleared", wiring.gradients_not_cleared, Level.WIRING),
    FunctionRule("parameters-unchanged", wiring.parameters_unchanged, Level.WIRING, BROKEN),
    FunctionRule("labels-swapped", wiring.labels_swapped, Level.WIRING, WILD, steps=30),
    FunctionRule("discriminator-leaks", wiring.discriminator_leaks, Level.WIRING),
    FunctionRule("adversarial-imbalance", adversarial.imbalance, Level.RATE, WILD, steps=10),
    FunctionRule("regularization-dominates", layers.regularization_dominates, Level.RATE, steps=30),
    FunctionRule("learning-rate-high", losses.learning_rate_high, Level.RATE),
    FunctionRule("learning-rate-low", losses.learning_rate_low, Level.RATE),
    FunctionRule("weights-abnormal", layers.weights_abnormal, steps=20),
    FunctionRule("exploding-gradients", layers.exploding_gradients, steps=20),
    FunctionRule("nonfinite-loss", losses.nonfinite_loss),
    FunctionRule("dead-units", layers.dead_units),
    FunctionRule("saturated-units", layers.saturated_units),
    FunctionRule("vanishing-gradients", layers.vanishing_gradients, steps=40),
    FunctionRule("activations-off-centre", layers.activations_off_center, steps=50),
    FunctionRule("mode-collapse", adversarial.mode_collapse, steps=100),
    FunctionRule("discriminator-inert", adversarial.discriminator_inert),
    FunctionRule("discriminator-overfits", adversarial.discriminator_overfits, steps=100),
    FunctionRule("discriminator-too-strong", adversarial.discriminator_too_strong, steps=100),
    FunctionRule("loss-surge", losses.loss_surge, Level.SYMPTOM, {"loss-oscillates"}),
    FunctionRule("loss-oscillates", losses.loss_oscillates),
    FunctionRule("overfitting", losses.overfitting),
    FunctionRule("metric-disagrees", losses.metric_disagrees),
    FunctionRule("loss-flat", losses.loss_flat, steps=150),
)
"""Among symptoms, a rule suppresses those behind it."""


def training_rules() -> list[FunctionRule[History]]:
    return list(RULES)
