"""Gradients that are too small or too large, where that keeps a run from getting anywhere; and losses that are NaN."""

from __future__ import annotations

import math

from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import FAR_OFF, Progress, progress_of
from workbench.findings.rule import Level, Rule
from workbench.findings.rules.units import blocked_units, off_center_at_the_entrance
from workbench.findings.rules.weights import swells
from workbench.findings.series import Series


def weight_gradients(seen: History, network: str, looks: int) -> dict[str, float]:
    """The median norm of each weight's gradient over the last measured steps, in the order of the network."""
    table = seen.table("gradient")
    found = {name: table[name].finite().tail(looks) for name in seen.facts.of(network, "weight") if name in table}
    return {name: series.median() for name, series in found.items() if len(series) >= min(looks, 4)}


def total_gradient(seen: History, network: str) -> Series:
    """The norm of all gradients of a network at the measured steps."""
    return seen[f"gradient/{network}"]


class VanishingGradients(Rule[History]):
    """Next to nothing of the error reaches the first layers."""

    code = "vanishing-gradients"
    floor = Level.SYMPTOM
    limit = 1e-3
    share = 0.25
    """Share of the layers below the limit that counts as well, where skip connections feed the first."""
    looks = 6
    steps = 40

    def look(self, seen: History) -> Finding | None:
        if seen.step < self.steps:
            return None
        for network in seen.facts.networks():
            norms = weight_gradients(seen, network, self.looks)
            if len(norms) < 3:
                continue
            names, values = list(norms), list(norms.values())
            last = max(values[-1], 1e-30)
            weak = [name for name, value in norms.items() if value < self.limit * last]
            if values[0] >= self.limit * last and len(weak) < self.share * len(values):
                continue
            name = names[0] if values[0] < self.limit * last else min(norms, key=norms.__getitem__)
            say = self.fault if progress_of(seen).poor and network not in seen.facts.discriminators else self.note
            return say(
                seen.step,
                name,
                norms[name] / last,
                self.limit,
                f"Its gradient is {norms[name] / last:.1e} of the last layer's, so it hardly learns. Try "
                f"{seen.facts.option(network, 'norm', 'group')}, "
                f"{seen.facts.option(network, 'activation', 'relu')} and "
                f"{seen.facts.option(network, 'stage_residual', 'true')}, or fewer layers.",
            )
        return None


class ExplodingGradients(Rule[History]):
    """Gradients that outgrow themselves, or grow from layer to layer on their way back."""

    code = "exploding-gradients"
    floor = Level.SYMPTOM
    growth = 10.0
    ratio = 70.0
    looks = 6
    steps = 20

    def look(self, seen: History) -> Finding | None:
        progress = progress_of(seen)
        for network in seen.facts.networks():
            if network in seen.facts.discriminators:
                continue
            finding = self._outgrown(seen, network, progress) or self._from_layer_to_layer(seen, network, progress)
            if finding is not None:
                return finding
        return self._far_off(seen, progress)

    def _outgrown(self, seen: History, network: str, progress: Progress) -> Finding | None:
        norms = total_gradient(seen, network).finite()
        if seen.step < self.steps or len(norms) < 2 * self.looks or swells(seen, network):
            return None
        if seen.facts.adversarial:  # a discriminator that grows sure of itself pulls harder and harder
            return None
        latest, before = norms.tail(self.looks // 2), norms.tail(60).values[: -(self.looks // 2)]
        usual = Series(list(range(len(before))), before).median()
        growth = latest.median() / max(usual, 1e-30)
        # A run that begins at the answer of doing nothing has next to no gradients to compare with.
        if usual <= 0 or growth <= self.growth:
            return None
        return self._name(
            seen, network, growth, self.growth, progress.poor, f"is {growth:.0f} times its running median"
        )

    def _from_layer_to_layer(self, seen: History, network: str, progress: Progress) -> Finding | None:
        norms = weight_gradients(seen, network, self.looks)
        if seen.step < 2 * self.steps or len(norms) < 3 or not progress.finite or blocked_units(seen):
            return None
        last = list(norms.values())[-1]
        name = max(norms, key=norms.__getitem__)
        ratio = norms[name] / last if last > 0 else math.nan
        if not ratio > self.ratio:
            return None
        return self._name(seen, name, ratio, self.ratio, progress.poor, f"is {ratio:.0f} times that of the last layer")

    def _far_off(self, seen: History, progress: Progress) -> Finding | None:
        if seen.step < self.steps or not progress.still_off:
            return None
        if any(series.values[0] >= 0.5 for series in seen.table("saturated").values()):
            return None  # units at their ends before the first step keep it from coming back
        if off_center_at_the_entrance(seen):
            return None
        network, off = next(iter(seen.facts.networks()), "network"), progress.first_error
        what = f"is as far off as the outputs, whose error was {off:.0f} times a trivial answer's before the first step"
        return self._name(seen, network, off, FAR_OFF, True, what)

    def _name(self, seen: History, where: str, value: float, limit: float, harmed: bool, what: str) -> Finding:
        say, network = self.fault if harmed else self.note, where.partition(".")[0]
        return say(
            seen.step,
            where,
            value,
            limit,
            f"The gradient {what}. Clip it, {seen.facts.clipping.set(0.1)}, and start smaller: "
            f"{seen.facts.option(network, 'init', 'kaiming')} and {seen.facts.option(network, 'norm', 'group')}.",
        )


class NonfiniteLoss(Rule[History]):
    """A loss that is NaN or infinite."""

    code = "nonfinite-loss"
    floor = Level.SYMPTOM

    def look(self, seen: History) -> Finding | None:
        if seen.nonfinite is None:
            return None
        step, name = seen.nonfinite
        where = f"{_loss_name(name)} at step {step}"
        if seen.nonfinite_gradient is not None:
            first, layer = seen.nonfinite_gradient
            where += f"; gradients first in {layer}, at step {first}"
        return self.fault(
            step,
            where,
            "nan or inf",
            "a number",
            "Look at the batch of that step (NaN in the images?) and for log, sqrt or a division at 0 in the loss; "
            "instead of 16-mixed try --trainer.precision bf16-mixed. --trainer.detect_anomaly true names the place.",
        )


def _loss_name(name: str) -> str:
    return "the training loss" if name == "loss" else name
