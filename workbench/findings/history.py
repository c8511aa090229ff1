"""What a run has measured, as plain numbers over steps, and what is known of its model without measuring."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

KEPT_PER_LAYER = 64  # values kept one by one of each layer, of which there may be hundreds


@dataclass(frozen=True)
class Parameter:
    """A trainable tensor."""

    network: str  # the part of the model that its optimizer holds
    role: Literal["weight", "bias", "gain"]  # weight: two dimensions or more; gain: of norms and slopes
    fan_in: int = 0  # values that one output of its layer sums up; 0 where it is no weight
    optimizer: int | None = 0  # number of the optimizer that holds it; None: no optimizer does
    helper: bool = False  # part of something that is not meant to be trained: a module in eval mode, a loss, a metric


@dataclass(frozen=True)
class Activation:
    """A place where a non-linearity is applied."""

    kind: str  # such as relu, tanh, leaky_relu
    channels: int
    normed: bool = False  # whether a norm comes right before it
    trained: bool = True  # whether the layer before it has weights that are trained
    network: str = "network"
    last: bool = False  # whether it is the last one of its network, which shapes the output


@dataclass(frozen=True)
class Setting:
    """A setting of the run: how to write it, such as ``--trainer.gradient_clip_val {}``, and its value."""

    form: str
    value: float | None = None

    def set(self, value: float) -> str:
        return self.form.format(f"{value:.2g}")


@dataclass
class ModelInfo:
    """What is known without measuring. Settings are by network, by loss, or by the name that is logged."""

    parameters: dict[str, Parameter] = field(default_factory=dict)  # in the order of the model
    unfrozen: dict[str, Parameter] = field(default_factory=dict)  # frozen at first, trained now
    activations: dict[str, Activation] = field(default_factory=dict)  # in the order in which the network uses them
    learning_rate: dict[str, Setting] = field(default_factory=dict)
    clipping: Setting = field(default_factory=lambda: Setting("gradient clipping at {}"))
    weight_decay: dict[str, Setting] = field(default_factory=dict)
    decoupled: frozenset[str] = frozenset()  # networks whose optimizer keeps decay and gradient apart (AdamW)
    penalties: dict[str, Setting] = field(default_factory=dict)  # on the size of the weights
    discriminators: frozenset[str] = frozenset()
    losses: dict[str, Setting] = field(default_factory=dict)  # weights of a generator's losses
    color: bool = False  # whether outputs are judged by their colors alone, as those of a colorizer
    higher_is_better: dict[str, bool] = field(default_factory=dict)  # of each metric, by its name
    pretrained: bool = False  # whether training starts from weights that were trained before
    arguments: frozenset[str] = frozenset()  # names that the model's class takes
    command_line: bool = False  # whether settings are keys of a command line, and not a script's own

    @property
    def adversarial(self) -> bool:
        return bool(self.discriminators)

    @property
    def discriminator(self) -> str:
        return min(self.discriminators, default="discriminator")

    def networks(self) -> list[str]:
        """The networks that an optimizer trains, in order."""
        return list(dict.fromkeys(p.network for p in self.parameters.values() if p.optimizer is not None))

    def main_network(self) -> str:
        """The first one that is no discriminator."""
        return next((name for name in self.networks() if name not in self.discriminators), "network")

    def activation(self, name: str) -> Activation:
        return self.activations.get(name, Activation("unknown", 0))

    def lower_rate(self, network: str, by: float = 10.0) -> str:
        """How to lower (or with ``by`` below 1 raise) a network's learning rate."""
        rates = self.learning_rate
        found = next((rate for name, rate in rates.items() if network in (name, *name.split("+"))), None)
        found = next(iter(rates.values())) if found is None and len(rates) == 1 else found
        if found is None or found.value is None:
            return f"the learning rate of {network} {'divided' if by >= 1 else 'multiplied'} by {max(by, 1 / by):g}"
        return found.set(found.value / by)


@dataclass
class Series:
    """Values over steps, oldest first; recent ones are kept one by one, older ones as means of several."""

    steps: list[int] = field(default_factory=list)  # ascending
    values: list[float] = field(default_factory=list)
    kept: int = 512  # values kept one by one at least, and means of older ones at most; an even number
    means: int = 0  # how many means it begins with
    each: int = 2  # how many values each of them stands for

    def add(self, step: int, value: float) -> None:
        """Append a value; steps never fall."""
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) - self.means >= self.kept + self.each:
            self._merge(self.means, self.means + self.each, self.each)
            self.means += 1
        if self.means > self.kept:
            self._merge(0, self.kept, 2)
            self.means -= self.kept // 2
            self.each *= 2

    def _merge(self, start: int, end: int, count: int) -> None:
        parts = [self.values[at : at + count] for at in range(start, end, count)]
        self.values[start:end] = [sum(part) / count for part in parts]
        self.steps[start:end] = self.steps[start + count - 1 : end : count]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter(zip(self.steps, self.values, strict=True))

    def __getitem__(self, part: slice) -> Series:
        return Series(self.steps[part], self.values[part])

    @property
    def last(self) -> float:
        return self.values[-1] if self.values else math.nan

    def finite(self) -> Series:
        if math.isfinite(sum(self.values)):  # the usual case, and what rules call most
            return self
        kept = [(step, value) for step, value in self if math.isfinite(value)]
        return Series([step for step, _ in kept], [value for _, value in kept])

    def since(self, step: int) -> Series:
        return self[bisect_left(self.steps, step) :]

    def until(self, step: int) -> Series:
        return self[: bisect_left(self.steps, step)]

    def tail(self, count: int) -> Series:
        return self[-count:]

    def recent(self, count: int) -> float:
        """The median of those of the last ``count`` values that are finite."""
        return self.tail(count).finite().median()

    def parts(self, count: int) -> list[Series]:
        """Cut into ``count`` parts that span as many steps each; some may be empty."""
        if not self.steps:
            return [Series() for _ in range(count)]
        first, length = self.steps[0], (self.steps[-1] + 1 - self.steps[0]) / count
        edges = [first + math.ceil(length * part) for part in range(count)] + [self.steps[-1] + 1]
        return [self.since(start).until(end) for start, end in itertools.pairwise(edges)]

    def chunks(self, length: int) -> list[Series]:
        """Cut into parts of ``length`` values each; the oldest values, too few for a part, are left out."""
        return [self[at : at + length] for at in range(len(self) % length, len(self), length)]

    def median(self) -> float:
        return median(self.values) if self.values else math.nan

    def spread(self) -> float:
        """A robust standard deviation: 1.48 times the median distance from the median."""
        middle = self.median()
        return 1.4826 * median(abs(value - middle) for value in self.values) if len(self) > 1 else 0.0

    def error_of_median(self) -> float:
        """How far the median would move from one drawing of such values to another: 1.25 sigma / sqrt(n)."""
        return 1.25 * self.spread() / math.sqrt(len(self)) if len(self) else 0.0


class History:
    """What was measured, by name; series are empty where nothing was.

    Scalars: ``loss`` (the training loss, every step); whatever the model logs (``train/...``, ``val/...``);
    ``lr/NETWORK``, ``update/NETWORK``, ``gradient/NETWORK``, ``decay/NETWORK``; ``game/...``; ``probe/error``,
    ``probe/nothing``, ``probe/mean`` (mean squared error on the probe: of the network, of doing nothing, of the mean).
    Tables hold a series for each layer: ``gradient``, ``missing``, ``update``, ``moved``, ``scale`` by parameter;
    ``dead``, ``saturated``, ``off_center``, ``offset`` by activation; ``carried``, ``leaked`` by network.
    """

    def __init__(self, model: ModelInfo | None = None) -> None:
        self.model = model or ModelInfo()
        self.step = 0  # optimizer steps done
        self.scalars: dict[str, Series] = {}
        self.tables: dict[str, dict[str, Series]] = {}
        self.first: dict[str, list[float]] = {}  # the first ten values of each scalar
        self.nonfinite: tuple[int, str] | None = None  # step and name of the first loss that was not finite
        self.nonfinite_gradient: tuple[int, str] | None = None  # step and tensor of the first such gradient
        self.cache: dict[str, Any] = {}  # what was derived from the measurements; cleared by the next one

    def add(self, name: str, step: int, value: float, table: str | None = None) -> None:
        """Append to a scalar, or to one layer's series of a table."""
        self.step = max(self.step, step)
        self.cache.clear()
        if table is not None:
            self.tables.setdefault(table, {}).setdefault(name, Series(kept=KEPT_PER_LAYER)).add(step, value)
            return
        self.scalars.setdefault(name, Series()).add(step, value)
        first = self.first.setdefault(name, [])
        if len(first) < 10:
            first.append(value)
        is_loss = name == "loss" or name.startswith("train/")
        if is_loss and not math.isfinite(value) and (self.nonfinite is None or step < self.nonfinite[0]):
            self.nonfinite = (step, name)

    def __getitem__(self, name: str) -> Series:
        return self.scalars.get(name) or Series()

    def table(self, name: str) -> dict[str, Series]:
        return self.tables.get(name, {})

    def row(self, table: str, name: str) -> Series:
        return self.table(table).get(name) or Series()

    def rows(self, table: str, network: str, role: str = "weight") -> dict[str, Series]:
        """The series of a network's trained tensors of one role, in its order."""
        parameters, found = self.model.parameters.items(), self.table(table)
        names = (n for n, p in parameters if p.network == network and p.optimizer is not None and p.role == role)
        return {name: found[name] for name in names if name in found}

    def latest(self, table: str) -> dict[str, float]:
        return {name: series.last for name, series in self.table(table).items()}

    def start(self, name: str, count: int = 10) -> float:
        """The level at which a scalar began: the median of its first ``count`` values (at most 10), or of fewer where
        it shot up at once; NaN when none is finite.
        """
        values = [value for value in self.first.get(name, []) if math.isfinite(value)][:count]
        if not values:
            return math.nan
        level = median(values)
        for fewer in (3, 1):
            earlier = median(values[:fewer])
            if level - earlier > 2 * abs(earlier):
                level = earlier
        return level
