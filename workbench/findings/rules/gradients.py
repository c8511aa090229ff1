"""Gradients that are too small or too large, where that keeps a run from getting anywhere; losses that are NaN."""

from __future__ import annotations

import math
from statistics import median

from workbench.findings.engine import Level, Rule
from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import FAR_OFF, Progress, progress_of
from workbench.findings.rules.units import blocked_units, input_off_center
from workbench.findings.rules.weights import outgrows_its_steps


def weight_gradients(history: History, network: str, count: int) -> dict[str, float]:
    """The median norm of each weight's gradient over the last measured steps, in the order of the network."""
    table = history.table("gradient")
    names = [name for name in history.model.tensors_of(network, "weight") if name in table]
    found = {name: table[name].finite().tail(count) for name in names}
    return {name: series.median() for name, series in found.items() if len(series) >= min(count, 4)}


class VanishingGradients(Rule[History]):
    """Next to nothing of the error reaches the first layers."""

    code = "vanishing-gradients"
    level = Level.SYMPTOM
    limit = 1e-3
    share = 0.25  # share of the layers below the limit that counts as well, where skip connections feed the first
    count = 6
    steps = 40

    def evaluate(self, history: History) -> Finding | None:
        model = history.model
        if history.step < self.steps:
            return None
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
            harmed = progress_of(history).poor and network not in model.discriminators
            advice = (
                f"Its gradient is {norms[name] / last:.1e} of the last layer's, so it hardly learns. Try norms"
                f"{model.option(network, 'norm', 'group')}, ReLU{model.option(network, 'activation', 'relu')} and "
                f"residual connections{model.option(network, 'stage_residual', 'true')}, or fewer layers."
            )
            report = self.fault if harmed else self.note
            return report(history.step, name, norms[name] / last, self.limit, advice)
        return None


class ExplodingGradients(Rule[History]):
    """Gradients that outgrow themselves, or grow from layer to layer on their way back."""

    code = "exploding-gradients"
    level = Level.SYMPTOM
    growth = 10.0
    ratio = 70.0
    count = 6
    steps = 20

    def evaluate(self, history: History) -> Finding | None:
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
        if history.step < self.steps or len(norms) < 2 * self.count or outgrows_its_steps(history, network):
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
        if history.step < self.steps or not progress.still_off:
            return None
        if any(series.values[0] >= 0.5 for series in history.table("saturated").values()):
            return None  # units saturated before the first step keep it from recovering
        if input_off_center(history):
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
        report = self.fault if harmed else self.note
        return report(history.step, where, value, limit, advice)


class NonfiniteLoss(Rule[History]):
    """A loss that is NaN or infinite."""

    code = "nonfinite-loss"
    level = Level.SYMPTOM

    def evaluate(self, history: History) -> Finding | None:
        if history.nonfinite is None:
            return None
        step, name = history.nonfinite
        where = f"{'the training loss' if name == 'loss' else name} at step {step}"
        if history.nonfinite_gradient is not None:
            where += "; gradients first in {1}, at step {0}".format(*history.nonfinite_gradient)
        model = history.model
        advice = (
            "Look at the batch of that step (NaN in the input?) and for log, sqrt or a division by 0 in the loss; "
            f"instead of 16-mixed precision try bf16-mixed{model.key('--trainer.precision bf16-mixed')}. Anomaly "
            f"detection names the place{model.key('--trainer.detect_anomaly true')}."
        )
        return self.fault(step, where, "nan or inf", "a number", advice)
