"""What is wrong inside a network: units that take no part, weights of an abnormal size, gradients that are too small or
too large where that keeps a run from getting anywhere, and losses that are NaN.
"""

from __future__ import annotations

import itertools
import math
from statistics import median

from workbench.findings.engine import Level
from workbench.findings.finding import Finding
from workbench.findings.history import Activation, History
from workbench.findings.progress import FAR_OFF, Progress, TrainingRule, progress_of

UNKNOWN = Activation("unknown", 0)
ALL_BUT = 0.95  # a layer of which nothing else is left does harm, however well the others get around it


def worst_first(history: History, table: str, above: float, count: int = 2) -> list[tuple[str, float]]:
    """Layers whose last ``count`` values are all above a limit, with the least of them; worst first."""
    rows = history.table(table).items()
    found = [(name, min(series.tail(count).values)) for name, series in rows if len(series) >= count]
    return sorted((entry for entry in found if entry[1] > above), key=lambda entry: -entry[1])


def blocked_units(history: History) -> bool:
    """Whether there is a layer most of whose units are dead or saturated."""
    return any(share >= 0.5 for name in ("dead", "saturated") for share in history.latest(name).values())


def input_off_center(history: History) -> bool:
    """Whether the values before the first non-linearity were far off 0 before the first step."""
    name, place = next(iter(history.model.activations.items()), ("", UNKNOWN))
    offset = history.row("offset", name)
    return len(offset) > 0 and not place.normed and offset.values[0] > ActivationsOffCenter.far


class DeadUnits(TrainingRule):
    """Channels behind a ReLU that are zero on the whole probe: nothing gets through, and no gradient comes back."""

    code = "dead-units"
    limit = 0.5

    def find(self, history: History) -> Finding | None:
        layers, model = worst_first(history, "dead", self.limit), history.model
        if not layers:
            return None
        trained = [entry for entry in layers if model.activations.get(entry[0], UNKNOWN).trained]
        name, share = (trained or layers)[0]
        network = model.activations.get(name, UNKNOWN).network
        others = f"; further layers: {', '.join(layer for layer, _ in layers[1:4])}" if len(layers) > 1 else ""
        advice = (
            f"{share:.0%} of its channels are zero for every sample of the probe{others}. Lower the rate, "
            f"{model.lower_rate(network, 3)}, or let units recover with a leaky ReLU"
            f"{model.option(network, 'activation', 'leaky_relu')}. Look for biases far below 0."
        )
        harmed = bool(trained) and (share >= ALL_BUT or progress_of(history).poor)
        return self.report(history, name, share, advice, harmed)


class SaturatedUnits(TrainingRule):
    """Units of a tanh or sigmoid at their ends, where the slope is nearly 0."""

    code = "saturated-units"
    limit = 0.5

    def find(self, history: History) -> Finding | None:
        layers, places = worst_first(history, "saturated", self.limit), history.model.activations
        if not layers:
            return None
        trained = [entry for entry in layers if places.get(entry[0], UNKNOWN).trained]
        name, share = (trained or layers)[0]
        progress, option, network = progress_of(history), history.model.option, places.get(name, UNKNOWN).network
        # Outputs may well end where targets do, at black and white.
        whole = any(value >= ALL_BUT and not places.get(layer, UNKNOWN).last for layer, value in trained)
        harmed = progress.poor or (progress.beats_trivial is False and (whole or progress.far_off))
        advice = (
            f"{share:.0%} of its channels are at an end of the non-linearity nearly everywhere, where gradients are 0. "
            f"Put a norm before it{option(network, 'norm', 'group')}, start with smaller weights"
            f"{option(network, 'init', 'xavier')}, or take a ReLU{option(network, 'activation', 'relu')}."
        )
        return self.report(history, name, share, advice, bool(trained) and harmed)


class ActivationsOffCenter(TrainingRule):
    """Values before a non-linearity whose mean is far from 0 against their spread, so that it acts like a line.

    Without a norm, what follows a ReLU sees positive values only: a mean above the spread is common, and harmless.
    """

    code = "activations-off-centre"
    limit = 1.0
    far = 10.0  # median over the channels of |mean| / std above which it is no longer usual
    most = 0.5
    steps = 50

    def find(self, history: History) -> Finding | None:
        shares, model = dict(worst_first(history, "off_center", self.most)), history.model
        for name, offset in worst_first(history, "offset", self.far):
            place = model.activations.get(name, UNKNOWN)
            if name not in shares or place.normed or not place.trained:
                continue
            progress = progress_of(history)
            harmed = progress.poor or (progress.far_off and progress.beats_trivial is False)
            advice = (
                f"Before it, the mean is {offset:.1f} times the spread in the median channel, so that it acts like a "
                f"line. Put a norm before it{model.option(place.network, 'norm', 'group')}, and see that the input is "
                f"normalized{model.key('--data.input_range standardize')}."
            )
            return self.report(history, name, offset, advice, harmed)
        return None


class RegularizationDominates(TrainingRule):
    """What pulls weights towards 0 is stronger than what the data says."""

    code = "regularization-dominates"
    level = Level.RATE
    limit = 1.0
    count = 8  # so many measured steps; not the last ones: once the weights are gone, so is the penalty
    steps = 30

    def find(self, history: History) -> Finding | None:
        model, data = history.model, dict(history["train/loss"].finite())
        pulls = [
            (name, setting, [value / abs(data[step]) for step, value in history[name].finite() if data.get(step)])
            for name, setting in model.penalties.items()
        ]
        pulls += [(name, s, history[f"decay/{name}"].finite().values) for name, s in model.weight_decay.items()]
        for where, setting, ratios in pulls:
            above = [ratio for ratio in ratios if ratio > self.limit]
            if len(above) >= self.count:
                advice = (
                    f"The pull of the weights towards 0 is {median(above):.1f} times what the data asks for: "
                    f"{setting.set((setting.value or 0) / 100)}."
                )
                return self.report(history, where, median(above), advice, progress_of(history).poor)
        return None


class WeightsAbnormal(TrainingRule):
    """A layer whose weights or biases outgrow all others: outputs and gradients that are far off follow from it.

    Where units are dead or saturated, that is what large values have done, and what is named.
    """

    code = "weights-abnormal"
    limit = 10.0
    steps = 20

    def find(self, history: History) -> Finding | None:
        for network in history.model.networks():
            name, ratio = growing(history, network)
            if name:
                return self._name(history, network, name, ratio, "times what it was, and keeps growing")
            for role in ("weight", "bias") if not blocked_units(history) else ():
                name, ratio = self._larger(history, network, role)
                if ratio > self.limit:
                    return self._name(history, network, name, ratio, "times that of the other layers")
        return None

    @staticmethod
    def _larger(history: History, network: str, role: str) -> tuple[str, float]:
        """The layer that is largest against the others, each weight measured by what its fan-in asks for."""
        rows = history.rows("scale", network, role).items()
        sizes = {name: size_of(history, name, series.last) for name, series in rows}
        sizes = {name: size for name, size in sizes.items() if math.isfinite(size)}
        if len(sizes) < 4:
            return "", 0.0
        name = max(sizes, key=sizes.__getitem__)
        others = median(size for other, size in sizes.items() if other != name)
        # Biases start at 0, and one of a few tenths is nothing special.
        return name, sizes[name] / max(others, 0.3 if role == "bias" else 1e-12)

    def _name(self, history: History, network: str, where: str, ratio: float, what: str) -> Finding:
        progress, model = progress_of(history), history.model
        advice = (
            f"The mean size of its values is {ratio:.0f} {what}. Look at how it is initialized"
            f"{model.option(network, 'init', 'kaiming')}, lower the rate, {model.lower_rate(network, 3)}, and hold "
            "weights down by a weight_decay of 1e-4 in the optimizer."
        )
        return self.report(history, where, ratio, advice, progress.poor or progress.still_off)


def growing(history: History, network: str, growth: float = 1.3, grown: float = 4.0) -> tuple[str, float]:
    """A layer whose weights keep growing through the whole run, and by how much; an empty name where there is none.

    ``growth`` is the least factor from each quarter of the run to the next; ``grown`` that over the whole run, and
    against what the fan-in asks for.
    """
    for name, series in history.rows("scale", network).items():
        parts = series.finite().parts(4)
        if any(not len(part) for part in parts) or not parts[0].last > 0:
            continue
        levels = [part.last for part in parts]
        steady = all(after > growth * before for before, after in itertools.pairwise(levels))
        # A tail that starts near 0 on purpose grows for a while as well.
        if steady and levels[-1] > grown * levels[0] and size_of(history, name, levels[-1]) > grown:
            return name, levels[-1] / levels[0]
    return "", 1.0


def outgrows_its_steps(history: History, network: str) -> bool:
    """Whether weights grow faster than the optimizer's steps can have moved them: then no rate is to blame for it."""
    name, ratio = growing(history, network, growth=1.15, grown=1.7)
    steps = history.row("update", name).finite()
    return bool(name) and math.log(ratio) > 1.5 * steps.median() * 0.75 * history.step


def size_of(history: History, name: str, value: float) -> float:
    """A mean size against what the fan-in asks for: about 1."""
    fan_in = history.model.parameters[name].fan_in
    return value * math.sqrt(fan_in) if fan_in else value


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
