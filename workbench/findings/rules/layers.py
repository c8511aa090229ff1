"""What is wrong inside a network: units that take no part, and weights and gradients of an abnormal size."""

from __future__ import annotations

import itertools
import math
from statistics import median

from workbench.findings.engine import Found
from workbench.findings.history import History
from workbench.findings.progress import FAR_OFF, progress_of

ALL_BUT = 0.95  # a layer of which nothing else is left does harm, however well the others get around it
FAR_OFF_CENTER = 10.0  # median over the channels of |mean| / std above which it is no longer usual
TIMES_LARGER = 10.0  # than the other layers


def worst_first(history: History, table: str, above: float = 0.5) -> list[tuple[str, float]]:
    """Layers whose last two values are both above a limit, with the lesser of them; trained ones first, worst first."""
    rows = history.table(table).items()
    found = [(name, min(series.tail(2).values)) for name, series in rows if len(series) >= 2]
    found = [entry for entry in found if entry[1] > above]
    return sorted(found, key=lambda entry: (not history.model.activation(entry[0]).trained, -entry[1]))


def blocked_units(history: History) -> bool:
    """Whether there is a layer most of whose units are dead or saturated."""
    return any(share >= 0.5 for name in ("dead", "saturated") for share in history.latest(name).values())


def dead_units(history: History) -> Found | None:
    """Channels behind a ReLU that are zero on the whole probe: nothing gets through, and no gradient comes back."""
    layers, model = worst_first(history, "dead"), history.model
    if not layers:
        return None
    name, share = layers[0]
    place = model.activation(name)
    harmed = place.trained and (share >= ALL_BUT or progress_of(history).poor)
    advice = f"Lower the rate, {model.lower_rate(place.network, 3)}, or let units recover with a leaky ReLU."
    return Found(name, share, 0.5, advice, harmed)


def saturated_units(history: History) -> Found | None:
    """Units of a tanh or sigmoid at their ends, where the slope is nearly 0."""
    layers, progress = worst_first(history, "saturated"), progress_of(history)
    if not layers:
        return None
    places = [(history.model.activation(layer), value) for layer, value in layers]
    # Outputs may well end where targets do, at black and white.
    whole = any(value >= ALL_BUT and place.trained and not place.last for place, value in places)
    harmed = progress.poor or (progress.beats_trivial is False and (whole or progress.far_off))
    advice = "Put a norm before it, or start with smaller weights: at an end of the non-linearity gradients are 0."
    return Found(*layers[0], 0.5, advice, places[0][0].trained and harmed)


def activations_off_center(history: History) -> Found | None:
    """Values before a non-linearity whose mean is far from 0 against their spread, so that it acts like a line.

    Without a norm, what follows a ReLU sees positive values only: a mean above the spread is common, and harmless.
    """
    shares, progress = dict(worst_first(history, "off_center")), progress_of(history)
    for name, offset in worst_first(history, "offset", FAR_OFF_CENTER):
        place = history.model.activation(name)
        if name in shares and place.trained and not place.normed:
            harmed = progress.poor or (progress.far_off and progress.beats_trivial is False)
            advice = "Put a norm before it, and see that the input is normalized: far off 0 it acts like a line."
            return Found(name, offset, 1.0, advice, harmed)
    return None


def regularization_dominates(history: History) -> Found | None:
    """What pulls weights towards 0 is stronger than what the data says."""
    model, data = history.model, dict(history["train/loss"].finite())
    pulls = [
        (name, setting, [value / abs(data[step]) for step, value in history[name].finite() if data.get(step)])
        for name, setting in model.penalties.items()
    ]
    pulls += [(name, s, history[f"decay/{name}"].finite().values) for name, s in model.weight_decay.items()]
    for where, setting, ratios in pulls:
        above = [ratio for ratio in ratios if ratio > 1]
        if len(above) >= 8:  # not the last ones: once the weights are gone, so is the penalty
            weaker = setting.set((setting.value or 0) / 100)
            advice = f"The pull of the weights towards 0 outweighs the data {median(above):.1f} times. Try {weaker}."
            return Found(where, median(above), 1.0, advice, progress_of(history).poor)
    return None


def weights_abnormal(history: History) -> Found | None:
    """A layer whose weights or biases outgrow all others: outputs and gradients that are far off follow from it.

    Where units are dead or saturated, that is what large values have done, and what is named.
    """
    progress = progress_of(history)
    for network in history.model.networks():
        name, ratio = growing(history, network)
        what = f"{ratio:.0f} times what it was, and keeps growing"
        if not name and not blocked_units(history):
            name, ratio = largest_layer(history, network)
            what = f"{ratio:.0f} times as large as the other layers"
        if name:
            advice = f"It is {what}. Start it smaller, or lower the rate: {history.model.lower_rate(network, 3)}."
            behind = progress.far_off and progress.beats_trivial is False
            return Found(name, ratio, TIMES_LARGER, advice, progress.poor or progress.still_off or behind)
    return None


def largest_layer(history: History, network: str) -> tuple[str, float]:
    """The weight or bias that is far larger than the others, and how many times; "" where there is none."""
    for role in ("weight", "bias"):
        rows = history.rows("scale", network, role).items()
        sizes = {name: size_of(history, name, series.last) for name, series in rows if math.isfinite(series.last)}
        if len(sizes) < 4:
            continue
        name = max(sizes, key=sizes.__getitem__)
        others = median(size for other, size in sizes.items() if other != name)
        # Biases start at 0, and one of a few tenths is nothing special.
        ratio = sizes[name] / max(others, 0.3 if role == "bias" else 1e-12)
        if ratio > TIMES_LARGER:
            return name, ratio
    return "", 0.0


def growing(history: History, network: str, growth: float = 1.3, grown: float = 4.0) -> tuple[str, float]:
    """A layer whose weights grow by the factor ``growth`` in each quarter of the run, and by ``grown`` in all; and by
    how much; "" where there is none.
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


def weight_gradients(history: History, network: str) -> dict[str, float]:
    """The median norm of each weight's gradient over the last measured steps, in the order of the network."""
    found = {name: series.finite().tail(6) for name, series in history.rows("gradient", network).items()}
    return {name: series.median() for name, series in found.items() if len(series) >= 4}


def vanishing_gradients(history: History) -> Found | None:
    """Next to nothing of the error reaches the first layers."""
    model, limit = history.model, 1e-3
    for network in model.networks():
        norms = weight_gradients(history, network)
        if len(norms) < 3:
            continue
        first, *_, last = norms.values()
        last = max(last, 1e-30)
        weak = sum(value < limit * last for value in norms.values())
        # A quarter of the layers counts as well, where skip connections feed the first.
        if first >= limit * last and weak < 0.25 * len(norms):
            continue
        name = next(iter(norms)) if first < limit * last else min(norms, key=norms.__getitem__)
        advice = "The first layers hardly learn. Try norms, ReLU, residual connections or fewer layers."
        harmed = progress_of(history).poor and network not in model.discriminators
        return Found(name, norms[name] / last, limit, advice, harmed)
    return None


def exploding_gradients(history: History) -> Found | None:
    """Gradients that outgrow themselves, or grow from layer to layer on their way back; or outputs far off at first."""
    progress, model = progress_of(history), history.model
    generators = [network for network in model.networks() if network not in model.discriminators]
    found = next((entry for n in generators for entry in (outgrown(history, n), by_layer(history, n)) if entry), None)
    harmed = progress.poor
    if found is None and starts_far_off(history):
        error, harmed = progress.first_error, True
        what = f"as far off as the output, whose error was {error:.0f} times the trivial one before the first step"
        found = next(iter(model.networks()), "network"), error, FAR_OFF, what
    if found is None:
        return None
    where, value, limit, what = found
    advice = f"The gradient is {what}. Clip it, {model.clipping.set(0.1)}, and start with smaller weights."
    return Found(where, value, limit, advice, harmed)


def outgrown(history: History, network: str) -> tuple[str, float, float, str] | None:
    """Where, by how much, the limit, and that in words."""
    norms, limit = history[f"gradient/{network}"].finite(), 10.0
    # A discriminator that becomes certain pulls harder and harder.
    if len(norms) < 12 or history.model.adversarial or outgrows_its_steps(history, network):
        return None
    latest, usual = norms.tail(3).median(), norms.tail(60)[:-3].median()
    growth = latest / max(usual, 1e-30)
    # A run that begins at the do-nothing output has next to no gradients to compare with.
    return (network, growth, limit, f"{growth:.0f} times its running median") if growth > limit and usual > 0 else None


def by_layer(history: History, network: str) -> tuple[str, float, float, str] | None:
    norms, limit = weight_gradients(history, network), 70.0
    if history.step < 40 or len(norms) < 3 or not progress_of(history).finite or blocked_units(history):
        return None
    *_, last = norms.values()
    name = max(norms, key=norms.__getitem__)
    ratio = norms[name] / last if last > 0 else math.nan
    return (name, ratio, limit, f"{ratio:.0f} times that of the last layer") if ratio > limit else None


def starts_far_off(history: History) -> bool:
    """Whether the outputs are far off for no other reason: saturated units, or values far off 0, at the start."""
    name = next(iter(history.model.activations), "")
    offset = history.row("offset", name)
    off_center = len(offset) and not history.model.activation(name).normed and offset.values[0] > FAR_OFF_CENTER
    saturated = any(series.values[0] >= 0.5 for series in history.table("saturated").values())
    return progress_of(history).still_off and not saturated and not off_center
