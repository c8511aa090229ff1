"""Units that take no part: dead, saturated, or far from the center of their non-linearity."""

from __future__ import annotations

from workbench.findings.engine import Level, Rule
from workbench.findings.finding import Finding
from workbench.findings.history import Activation, History
from workbench.findings.progress import progress_of
from workbench.findings.series import Series


def worst_first(table: dict[str, Series], count: int) -> list[tuple[str, float]]:
    """Layers and the least of their last ``count`` values, worst first; layers with fewer are left out."""
    found = [(name, min(series.tail(count).values)) for name, series in table.items() if len(series) >= count]
    return sorted(found, key=lambda entry: -entry[1])


def blocked_units(history: History) -> bool:
    """Whether there is a layer most of whose units are dead or saturated."""
    return any(share >= 0.5 for name in ("dead", "saturated") for share in history.latest(name).values())


def input_off_center(history: History) -> bool:
    """Whether the values before the first non-linearity were far off 0 before the first step."""
    name = next(iter(history.model.activations), "")
    offset = history.table("offset").get(name, Series())
    return len(offset) > 0 and not _activation(history, name).normed and offset.values[0] > ActivationsOffCenter.far


class DeadUnits(Rule[History]):
    """Channels behind a ReLU that are zero on the whole probe: nothing gets through, and no gradient comes back."""

    code = "dead-units"
    level = Level.SYMPTOM
    limit = 0.5
    all_but = 0.95  # A layer of which nothing else is left does harm, however well the others get around it
    count = 2

    def evaluate(self, history: History) -> Finding | None:
        layers = [entry for entry in worst_first(history.table("dead"), self.count) if entry[1] > self.limit]
        if not layers:
            return None
        trained = [entry for entry in layers if _activation(history, entry[0]).trained]
        name, share = (trained or layers)[0]
        harmed = trained and (share >= self.all_but or progress_of(history).poor)
        others = f"; further layers: {', '.join(layer for layer, _ in layers[1:4])}" if len(layers) > 1 else ""
        model, network = history.model, _activation(history, name).network
        advice = (
            f"{share:.0%} of its channels are zero for every sample of the probe{others}. Lower the rate, "
            f"{model.lower_rate(network, 3)}, or let units recover with a leaky ReLU"
            f"{model.option(network, 'activation', 'leaky_relu')}. Look for biases far below 0."
        )
        return (self.fault if harmed else self.note)(history.step, name, share, self.limit, advice)


class SaturatedUnits(Rule[History]):
    """Units of a tanh or sigmoid at their ends, where the slope is nearly 0."""

    code = "saturated-units"
    level = Level.SYMPTOM
    limit = 0.5
    all_but = 0.95  # A layer of which nothing else is left does harm until the network is better than a trivial output
    count = 2

    def evaluate(self, history: History) -> Finding | None:
        layers = [entry for entry in worst_first(history.table("saturated"), self.count) if entry[1] > self.limit]
        if not layers:
            return None
        trained = [entry for entry in layers if _activation(history, entry[0]).trained]
        name, share = (trained or layers)[0]
        progress = progress_of(history)
        # Outputs may well end where targets do, at black and white.
        whole = any(value >= self.all_but and not _activation(history, layer).last for layer, value in trained)
        harmed = progress.poor or (progress.beats_trivial is False and (whole or progress.far_off))
        report = self.fault if trained and harmed else self.note
        advice = (
            f"{share:.0%} of its channels are at an end of the non-linearity nearly everywhere, where gradients are 0. "
            f"Put a norm before it{_option(history, name, 'norm', 'group')}, start with smaller weights"
            f"{_option(history, name, 'init', 'xavier')}, or take a ReLU{_option(history, name, 'activation', 'relu')}."
        )
        return report(history.step, name, share, self.limit, advice)


class ActivationsOffCenter(Rule[History]):
    """Values before a non-linearity whose mean is far from 0 against their spread, so that it acts like a line.

    Without a norm, what follows a ReLU sees positive values only, so that a mean above the spread is common there, and
    harmless.
    """

    code = "activations-off-centre"
    level = Level.SYMPTOM
    limit = 1.0
    far = 10.0  # median over the channels of |mean| / std above which it is no longer usual
    most = 0.5
    count = 2
    steps = 50

    def evaluate(self, history: History) -> Finding | None:
        if history.step < self.steps:
            return None
        shares = dict(worst_first(history.table("off_center"), self.count))
        offsets = {
            name: offset
            for name, offset in worst_first(history.table("offset"), self.count)
            if shares.get(name, 0) > self.most and not (place := _activation(history, name)).normed and place.trained
        }
        name, offset = next(iter(offsets.items()), ("", 0.0))
        if not offset > self.far:
            return None
        progress = progress_of(history)
        harmed = progress.poor or (progress.far_off and progress.beats_trivial is False)
        advice = (
            f"Before it, the mean is {offset:.1f} times the spread in the median channel, so that the non-linearity "
            f"acts like a line. Put a norm before it{_option(history, name, 'norm', 'group')}, and see that the input "
            f"is normalized{history.model.key('--data.input_range standardize')}."
        )
        return (self.fault if harmed else self.note)(history.step, name, offset, self.limit, advice)


def _activation(history: History, layer: str) -> Activation:
    return history.model.activations.get(layer) or Activation("unknown", 0)


def _option(history: History, layer: str, name: str, value: str) -> str:
    return history.model.option(_activation(history, layer).network, name, value)
