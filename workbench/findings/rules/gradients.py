"""Gradients that are too small or too large, where that keeps a run from getting anywhere; losses that are NaN."""

from __future__ import annotations

import math
from statistics import median

from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import FAR_OFF, Progress, TrainingRule, progress_of
from workbench.findings.rules.units import blocked_units, input_off_center
from workbench.findings.rules.weights import outgrows_its_steps


def weight_gradients(history: History, network: str, count: int) -> dict[str, float]:
    """The median norm of each weight's gradient over the last measured steps, in the order of the network."""
    found = {name: series.finite().tail(count) for name, series in history.rows("gradient", network).items()}
    return {name: series.median() for name, series in found.items() if len(series) >= min(count, 4)}


class VanishingGradients(TrainingRule):
    """Next to nothing of the error reaches the first layers."""

    code = "vanishing-gradients"
    limit = 1e-3
    share = 0.25  # share of the layers below the limit that counts as well, where skip connections feed the first
    count = 6
    steps = 40

    def find(self, history: History) -> Finding | None:
        model = history.model
        for network in model.networks():
            norms = weight_gradients(history, network, self.count)
            if len(norms) < 3:
                continue
            names, values = list(norms), list(norms.values())
            last = max(values[-1], 1e-30)
            weak = sum(value < self.limit * last for value in values)
            if values[0] >= self.limit * last and weak < self.share * len(values):
                continue
            name = names[0] if values[0] < self.limit * last else min(norms, key=norms.__getitem__)
            advice = (
                f"Its gradient is {norms[name] / last:.1e} of the last layer's, so it hardly learns. Try norms"
                f"{model.option(network, 'norm', 'group')}, ReLU{model.option(network, 'activation', 'relu')}, "
                f"residual connections{model.option(network, 'stage_residual', 'true')} or fewer layers."
            )
            harmed = progress_of(history).poor and network not in model.discriminators
            return self.report(history, name, norms[name] / last, advice, harmed)
        return None


class ExplodingGradients(TrainingRule):
    """Gradients that outgrow themselves, or grow from layer to layer on their way back."""

    code = "exploding-gradients"
    growth = 10.0
    ratio = 70.0
    count = 6
    steps = 20

    def find(self, history: History) -> Finding | None:
        progress, model = progress_of(history), history.model
        for network in model.networks():
            if network in model.discriminators:
                continue
            finding = self._outgrown(history, network, progress) or self._by_layer(history, network, progress)
            if finding is not None:
                return finding
        return self._far_off(history, progress)

    def _outgrown(self, history: History, network: str, progress: Progress) -> Finding | None:
        norms = history[f"gradient/{network}"].finite()
        if len(norms) < 2 * self.count or outgrows_its_steps(history, network):
            return None
        if history.model.adversarial:  # a discriminator that becomes certain pulls harder and harder
            return None
        latest, usual = norms.tail(self.count // 2).median(), median(norms.tail(60).values[: -(self.count // 2)])
        growth = latest / max(usual, 1e-30)
        # A run that begins at the do-nothing output has next to no gradients to compare with.
        if usual <= 0 or growth <= self.growth:
            return None
        what = f"is {growth:.0f} times its running median"
        return self._name(history, network, growth, self.growth, progress.poor, what)

    def _by_layer(self, history: History, network: str, progress: Progress) -> Finding | None:
        norms = weight_gradients(history, network, self.count)
        if history.step < 2 * self.steps or len(norms) < 3 or not progress.finite or blocked_units(history):
            return None
        last = list(norms.values())[-1]
        name = max(norms, key=norms.__getitem__)
        ratio = norms[name] / last if last > 0 else math.nan
        if not ratio > self.ratio:
            return None
        what = f"is {ratio:.0f} times that of the last layer"
        return self._name(history, name, ratio, self.ratio, progress.poor, what)

    def _far_off(self, history: History, progress: Progress) -> Finding | None:
        # Units that were saturated before the first step keep it from recovering.
        saturated = any(series.values[0] >= 0.5 for series in history.table("saturated").values())
        if not progress.still_off or saturated or input_off_center(history):
            return None
        error = progress.first_error
        what = f"is as far off as the output, whose error was {error:.0f} times the trivial one before the first step"
        return self._name(history, next(iter(history.model.networks()), "network"), error, FAR_OFF, True, what)

    def _name(self, history: History, where: str, value: float, limit: float, harmed: bool, what: str) -> Finding:
        model, network = history.model, where.partition(".")[0]
        advice = (
            f"The gradient {what}. Clip it, {model.clipping.set(0.1)}, and start with smaller weights"
            f"{model.option(network, 'init', 'kaiming')} and norms{model.option(network, 'norm', 'group')}."
        )
        return self.report(history, where, value, advice, harmed, limit)


class NonfiniteLoss(TrainingRule):
    """A loss that is NaN or infinite."""

    code = "nonfinite-loss"

    def find(self, history: History) -> Finding | None:
        if history.nonfinite is None:
            return None
        step, name = history.nonfinite
        where = f"{'the training loss' if name == 'loss' else name} at step {step}"
        if history.nonfinite_gradient is not None:
            where += "; gradients first in {1}, at step {0}".format(*history.nonfinite_gradient)
        model = history.model
        advice = (
            "Look at the batch of that step (NaN in the input?) and for log, sqrt or a division by 0 in the loss; use "
            f"bf16-mixed, not 16-mixed{model.key('--trainer.precision bf16-mixed')}. Anomaly detection names the place"
            f"{model.key('--trainer.detect_anomaly true')}."
        )
        return self._finding("fault", step, where, "nan or inf", "a number", advice)
