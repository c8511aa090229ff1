"""Weights of an abnormal size, and penalties on their size that outweigh the data."""

from __future__ import annotations

import itertools
import math
from statistics import median

from workbench.findings.engine import Level
from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import TrainingRule, progress_of
from workbench.findings.rules.units import blocked_units


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
