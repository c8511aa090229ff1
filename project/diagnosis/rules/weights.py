"""Weights of an odd size, and penalties on their size that outweigh the data."""

from __future__ import annotations

import itertools
import math
from statistics import median

from project.diagnosis.finding import Finding
from project.diagnosis.history import History, Knob
from project.diagnosis.progress import progress_of
from project.diagnosis.rule import Floor, Rule
from project.diagnosis.series import Series


class RegularisationDominates(Rule[History]):
    """What pulls weights towards 0 is stronger than what the data says."""

    code = "regularisation-dominates"
    floor = Floor.RATE
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
        """The optimiser's own decay: its part of a step against the rest of it."""
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
    """A layer whose weights or biases outgrow all others."""

    code = "weights-abnormal"
    floor = Floor.SYMPTOM
    limit = 10.0
    parts = 4
    growth = 1.3
    """From each part of the run to the next."""
    grown = 4.0
    """Over the whole run; and against what the fan-in asks for."""
    steps = 20

    def look(self, seen: History) -> Finding | None:
        if seen.step < self.steps:
            return None
        for network in seen.facts.networks():
            finding = self._larger(seen, network, "weight") or self._larger(seen, network, "bias")
            finding = finding or self._doubling(seen, network)
            if finding is not None:
                return finding
        return None

    def _larger(self, seen: History, network: str, role: str) -> Finding | None:
        """Against the other layers, each weight measured by what its fan-in asks for."""
        sizes = {name: self._size(seen, name, series.last) for name, series in self._scales(seen, network, role)}
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
        for name, series in self._scales(seen, network, "weight"):
            values = series.finite().parts(self.parts)
            if any(not len(part) for part in values):
                continue
            levels = [part.last for part in values]
            steady = all(after > self.growth * before for before, after in itertools.pairwise(levels))
            # A tail that starts near 0 on purpose grows for a while as well.
            if steady and levels[-1] > self.grown * levels[0] and self._size(seen, name, levels[-1]) > self.grown:
                return self._name(seen, network, name, levels[-1] / levels[0], "times what it was, and grows on")
        return None

    @staticmethod
    def _scales(seen: History, network: str, role: str) -> list[tuple[str, Series]]:
        table = seen.table("scale")
        return [(name, table[name]) for name in seen.facts.of(network, role) if name in table and len(table[name])]

    @staticmethod
    def _size(seen: History, name: str, value: float) -> float:
        fan_in = seen.facts.parameters[name].fan_in
        return value * math.sqrt(fan_in) if fan_in else value

    def _name(self, seen: History, network: str, where: str, ratio: float, what: str) -> Finding:
        say = self.fault if progress_of(seen).poor else self.note
        return say(
            seen.step,
            where,
            ratio,
            self.limit,
            f"The mean size of its values is {ratio:.0f} {what}. Look at how it is initialised, "
            f"{seen.facts.option(network, 'init', 'kaiming')}, and lower the rate, "
            f"{seen.facts.lower_rate(network, 3)}; weight_decay: 1e-4 in the optimiser's init_args holds weights down.",
        )
