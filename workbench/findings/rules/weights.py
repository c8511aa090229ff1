"""Weights of an odd size, and penalties on their size that outweigh the data."""

from __future__ import annotations

import itertools
import math
from statistics import median

from workbench.findings.finding import Finding
from workbench.findings.history import History, Knob
from workbench.findings.progress import progress_of
from workbench.findings.rule import Level, Rule
from workbench.findings.rules.units import blocked_units
from workbench.findings.series import Series


class RegularisationDominates(Rule[History]):
    """What pulls weights towards 0 is stronger than what the data says."""

    code = "regularization-dominates"
    floor = Level.RATE
    limit = 1.0
    looks = 8
    """So many measured steps; not the last ones: once the weights are gone, so is the penalty."""
    steps = 30

    def look(self, seen: History) -> Finding | None:
        if seen.step < self.steps:
            return None
        return self._of_penalties(seen) or self._of_decay(seen)

    def _of_penalties(self, seen: History) -> Finding | None:
        """Penalties that are logged beside the loss."""
        data = dict(seen["train/loss"].finite())
        for name, knob in seen.facts.penalties.items():
            ratios = [value / abs(data[step]) for step, value in seen[name].finite() if data.get(step)]
            finding = self._judge(seen, name, ratios, knob)
            if finding is not None:
                return finding
        return None

    def _of_decay(self, seen: History) -> Finding | None:
        """The optimizer's own decay: its part of a step against the rest of it."""
        for network, knob in seen.facts.weight_decay.items():
            finding = self._judge(seen, network, seen[f"decay/{network}"].finite().values, knob)
            if finding is not None:
                return finding
        return None

    def _judge(self, seen: History, where: str, ratios: list[float], knob: Knob) -> Finding | None:
        above = [ratio for ratio in ratios if ratio > self.limit]
        if len(above) < self.looks:
            return None
        return self._name(seen, where, median(above), knob.key, (knob.value or 0) / 100)

    def _name(self, seen: History, where: str, ratio: float, key: str, value: float) -> Finding:
        say = self.fault if progress_of(seen).poor else self.note
        return say(
            seen.step,
            where,
            ratio,
            self.limit,
            f"The pull of the weights towards 0 is {ratio:.1f} times what the data asks for: --{key} {value:.2g}.",
        )


class WeightsAbnormal(Rule[History]):
    """A layer whose weights or biases outgrow all others: outputs and gradients that are far off follow from it.

    Where units are dead or at their ends, that is what large values have done, and what is named.
    """

    code = "weights-abnormal"
    floor = Level.SYMPTOM
    limit = 10.0
    steps = 20

    def look(self, seen: History) -> Finding | None:
        if seen.step < self.steps:
            return None
        for network in seen.facts.networks():
            finding = self._doubling(seen, network)
            if finding is None and not blocked_units(seen):
                finding = self._larger(seen, network, "weight") or self._larger(seen, network, "bias")
            if finding is not None:
                return finding
        return None

    def _larger(self, seen: History, network: str, role: str) -> Finding | None:
        """Against the other layers, each weight measured by what its fan-in asks for."""
        sizes = {name: size_of(seen, name, series.last) for name, series in scales(seen, network, role)}
        sizes = {name: size for name, size in sizes.items() if math.isfinite(size)}
        if len(sizes) < 4:
            return None
        name = max(sizes, key=sizes.__getitem__)
        others = median(size for other, size in sizes.items() if other != name)
        if role == "bias":
            others = max(others, 0.3)  # biases start at 0, and one of a few tenths is nothing special
        ratio = sizes[name] / max(others, 1e-12)
        return self._name(seen, network, name, ratio, "times that of the other layers") if ratio > self.limit else None

    def _doubling(self, seen: History, network: str) -> Finding | None:
        name, ratio = doubling(seen, network)
        return self._name(seen, network, name, ratio, "times what it was, and grows on") if name else None

    def _name(self, seen: History, network: str, where: str, ratio: float, what: str) -> Finding:
        progress = progress_of(seen)
        say = self.fault if progress.poor or progress.still_off else self.note
        return say(
            seen.step,
            where,
            ratio,
            self.limit,
            f"The mean size of its values is {ratio:.0f} {what}. Look at how it is initialized, "
            f"{seen.facts.option(network, 'init', 'kaiming')}, and lower the rate, "
            f"{seen.facts.lower_rate(network, 3)}; weight_decay: 1e-4 in the optimizer's init_args holds weights down.",
        )


def doubling(seen: History, network: str, growth: float = 1.3, grown: float = 4.0) -> tuple[str, float]:
    """A layer whose weights keep growing through the whole run, and by how much; an empty name where there is none.

    Args:
        seen: The measurements.
        network: Its name.
        growth: Factor at least, from each quarter of the run to the next.
        grown: Over the whole run; and against what the fan-in asks for.
    """
    for name, series in scales(seen, network, "weight"):
        values = series.finite().parts(4)
        if any(not len(part) for part in values):
            continue
        levels = [part.last for part in values]
        steady = all(after > growth * before for before, after in itertools.pairwise(levels))
        # A tail that starts near 0 on purpose grows for a while as well.
        if steady and levels[-1] > grown * levels[0] and size_of(seen, name, levels[-1]) > grown:
            return name, levels[-1] / levels[0]
    return "", 1.0


def swells(seen: History, network: str) -> bool:
    """Whether weights grow faster than the optimizer's steps can have moved them: then no rate is to blame for it."""
    name, ratio = doubling(seen, network, growth=1.15, grown=1.7)
    steps = seen.table("update").get(name, Series()).finite()
    return bool(name) and math.log(ratio) > 1.5 * steps.median() * 0.75 * seen.step


def scales(seen: History, network: str, role: str) -> list[tuple[str, Series]]:
    """The mean size of the values of each weight or bias of a network."""
    table = seen.table("scale")
    return [(name, table[name]) for name in seen.facts.of(network, role) if name in table and len(table[name])]


def size_of(seen: History, name: str, value: float) -> float:
    """A mean size against what the fan-in asks for: about 1."""
    fan_in = seen.facts.parameters[name].fan_in
    return value * math.sqrt(fan_in) if fan_in else value
