"""Units that do not take part: dead, saturated, or off the middle of their non-linearity."""

from __future__ import annotations

from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import progress_of
from workbench.findings.rule import Level, Rule
from workbench.findings.series import Series


def worst_first(table: dict[str, Series], looks: int = 1) -> list[tuple[str, float]]:
    """Layers and the least of their last ``looks`` values, worst first; layers with fewer are left out."""
    found = [(name, min(series.tail(looks).values)) for name, series in table.items() if len(series) >= looks]
    return sorted(found, key=lambda entry: -entry[1])


def blocked_units(seen: History) -> bool:
    """Whether there is a layer most of whose units are dead or saturated."""
    tables = [seen.table(name).values() for name in ("dead", "saturated")]
    return any(series.last >= 0.5 for table in tables for series in table)


def off_center_at_the_entrance(seen: History) -> bool:
    """Whether the values before the first non-linearity were far off 0 before the first step: an input that is off."""
    name = next(iter(seen.facts.activations), "")
    offset = seen.table("offset").get(name, Series())
    return len(offset) > 0 and not _is_normed(seen, name) and offset.values[0] > ActivationsOffCenter.far


class DeadUnits(Rule[History]):
    """Channels behind a ReLU that are zero on the whole probe: nothing gets through, and no gradient comes back."""

    code = "dead-units"
    floor = Level.SYMPTOM
    limit = 0.5
    all_but = 0.95
    """A layer of which nothing else is left does harm, however well the rest gets around it."""
    looks = 2

    def look(self, seen: History) -> Finding | None:
        layers = [(name, share) for name, share in worst_first(seen.table("dead"), self.looks) if share > self.limit]
        if not layers:
            return None
        trained = [entry for entry in layers if _is_trained(seen, entry[0])]
        whole = [entry for entry in trained if entry[1] >= self.all_but]
        name, share = (trained or layers)[0]
        others = f"; further layers: {', '.join(layer for layer, _ in layers[1:4])}" if len(layers) > 1 else ""
        say = self.fault if whole or (trained and progress_of(seen).poor) else self.note
        network = _network(seen, name)
        return say(
            seen.step,
            name,
            share,
            self.limit,
            f"{share:.0%} of its channels are zero for every image of the probe{others}. Lower the rate, "
            f"{seen.facts.lower_rate(network, 3)}, or let units recover: "
            f"{seen.facts.option(network, 'activation', 'leaky_relu')}. Look for biases far below 0.",
        )


class SaturatedUnits(Rule[History]):
    """Units of a tanh or sigmoid at their ends, where the slope is nearly 0."""

    code = "saturated-units"
    floor = Level.SYMPTOM
    limit = 0.5
    all_but = 0.95
    """A layer of which nothing else is left does harm until the network is better than an answer without one."""
    looks = 2

    def look(self, seen: History) -> Finding | None:
        layers = [entry for entry in worst_first(seen.table("saturated"), self.looks) if entry[1] > self.limit]
        if not layers:
            return None
        trained = [entry for entry in layers if _is_trained(seen, entry[0])]
        name, share = (trained or layers)[0]
        progress = progress_of(seen)
        # Outputs may well end where targets do, at black and white.
        whole = [entry for entry in trained if entry[1] >= self.all_but and not _is_last(seen, entry[0])]
        harmed = progress.poor or (progress.beats_trivial is False and (whole or progress.far_off))
        say = self.fault if trained and harmed else self.note
        return say(
            seen.step,
            name,
            share,
            self.limit,
            f"{share:.0%} of its channels are at an end of the non-linearity nearly everywhere, where gradients are "
            f"0. Put a norm before it, {_option(seen, name, 'norm', 'group')}, start with smaller weights, "
            f"{_option(seen, name, 'init', 'xavier')}, or take another: {_option(seen, name, 'activation', 'relu')}.",
        )


class ActivationsOffCenter(Rule[History]):
    """Values before a non-linearity whose mean is far from 0 against their spread: it bends nothing.

    Without a norm, what follows a ReLU sees positive values only, so that a mean above the spread is common there, and
    harmless.
    """

    code = "activations-off-centre"
    floor = Level.SYMPTOM
    limit = 1.0
    far = 10.0
    """Median over the channels of |mean| / std above which it is no longer usual."""
    most = 0.5
    looks = 2
    steps = 50

    def look(self, seen: History) -> Finding | None:
        if seen.step < self.steps:
            return None
        shares = dict(worst_first(seen.table("off_center"), self.looks))
        layers = [
            (name, offset)
            for name, offset in worst_first(seen.table("offset"), self.looks)
            if shares.get(name, 0) > self.most and not _is_normed(seen, name) and _is_trained(seen, name)
        ]
        if not layers:
            return None
        name, offset = layers[0]
        progress = progress_of(seen)
        if offset > self.far and (progress.poor or (progress.far_off and progress.beats_trivial is False)):
            say = self.fault
        elif offset > self.far:
            say = self.note
        else:
            return None
        return say(
            seen.step,
            name,
            offset,
            self.limit,
            f"Before it, the mean is {offset:.1f} times the spread in the median channel, so that the non-linearity "
            f"bends nothing. Put a norm before it, {_option(seen, name, 'norm', 'group')}, and see that the input is "
            "normalized: --data.input_range standardize.",
        )


def _network(seen: History, layer: str) -> str:
    return seen.facts.activations[layer].network if layer in seen.facts.activations else "network"


def _option(seen: History, layer: str, name: str, value: str) -> str:
    return seen.facts.option(_network(seen, layer), name, value)


def _is_trained(seen: History, layer: str) -> bool:
    activation = seen.facts.activations.get(layer)
    return activation is None or activation.trained


def _is_last(seen: History, layer: str) -> bool:
    activation = seen.facts.activations.get(layer)
    return activation is not None and activation.last


def _is_normed(seen: History, layer: str) -> bool:
    activation = seen.facts.activations.get(layer)
    return activation is not None and activation.normed
