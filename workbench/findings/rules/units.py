"""Units that take no part: dead, saturated, or far from the center of their non-linearity."""

from __future__ import annotations

from workbench.findings.finding import Finding
from workbench.findings.history import Activation, History
from workbench.findings.progress import TrainingRule, progress_of

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
