"""All that the monitors have measured in a run: plain numbers over steps, and what the network is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from workbench.findings.series import Series

ROW = 64
"""Values that are kept one by one of each layer, of which there may be hundreds."""


@dataclass(frozen=True)
class Parameter:
    """A tensor that is meant to be trained.

    Attributes:
        network: What it is trained with: the name of the part of the model that its optimizer holds.
        role: weight (two dimensions or more), bias, or gain (all else: norms, slopes).
        fan_in: Values that one output of its layer sums up; 0 where it is no weight.
        optimizer: Number of the optimizer that holds it; None: no optimizer does.
        helper: Part of something that is not meant to be trained: a module in eval mode, a loss, a metric.
    """

    network: str
    role: Literal["weight", "bias", "gain"]
    fan_in: int = 0
    optimizer: int | None = 0
    helper: bool = False


@dataclass(frozen=True)
class Activation:
    """A place where a non-linearity is applied.

    Attributes:
        kind: Such as relu, tanh, leaky_relu.
        channels: How many.
        normed: Whether a norm comes right before it.
        trained: Whether the layer before it has weights that are trained.
        network: The part of the model that it belongs to.
        last: Whether it is the last one of its network, which shapes the output.
    """

    kind: str
    channels: int
    normed: bool = False
    trained: bool = True
    network: str = "network"
    last: bool = False


@dataclass(frozen=True)
class Knob:
    """A setting of the run: its key on the command line, and its value."""

    key: str
    value: float | None = None

    def set(self, value: float) -> str:
        """How to write it: ``--key value``."""
        return f"--{self.key} {value:.2g}"


@dataclass
class Facts:
    """What is known without measuring.

    Attributes:
        parameters: Trainable tensors by name, in the order in which the network uses them.
        later: Tensors that were frozen at first and have been let learn since; what a network starts with says nothing
            of them.
        activations: Places of non-linearities by name, in the order in which the network uses them.
        learning_rate: Learning rate of each network, by its name.
        clipping: The limit on gradients.
        weight_decay: Decay of each network, by its name.
        decoupled: Networks whose optimizer keeps the decay apart from the gradient (AdamW).
        penalties: Weights of the penalties on the size of the weights, by the name of what is logged.
        adversarial: Whether there is a discriminator.
        discriminators: Names of the networks that are discriminators.
        losses: Weights of the generator's losses.
        color: Whether outputs are to be judged by their colors alone, as those of a colorizer.
        higher_is_better: Direction of each metric, by its name.
        pretrained: Whether training starts from weights that were trained before.
        arguments: Names that the model's class takes.
        batch_size: Images in a batch.
    """

    parameters: dict[str, Parameter] = field(default_factory=dict)
    later: dict[str, Parameter] = field(default_factory=dict)
    activations: dict[str, Activation] = field(default_factory=dict)
    learning_rate: dict[str, Knob] = field(default_factory=dict)
    clipping: Knob = field(default_factory=lambda: Knob("gradient_clipping.norm"))
    weight_decay: dict[str, Knob] = field(default_factory=dict)
    decoupled: frozenset[str] = frozenset()
    penalties: dict[str, Knob] = field(default_factory=dict)
    adversarial: bool = False
    discriminators: frozenset[str] = frozenset()
    losses: dict[str, Knob] = field(default_factory=dict)
    color: bool = False
    higher_is_better: dict[str, bool] = field(default_factory=dict)
    pretrained: bool = False
    arguments: frozenset[str] = frozenset()
    batch_size: int | None = None

    def networks(self) -> list[str]:
        """The networks that an optimizer trains, in order."""
        held = (p.network for p in self.parameters.values() if p.optimizer is not None)
        return list(dict.fromkeys(held))

    def of(self, network: str, role: str | None = None) -> list[str]:
        """Names of a network's trained tensors, in order."""
        return [
            name
            for name, p in self.parameters.items()
            if p.network == network and p.optimizer is not None and (role is None or p.role == role)
        ]

    def option(self, network: str, name: str, value: object) -> str:
        """How to set an argument of a network's class: ``--key value``."""
        if network in self.arguments:
            return f"--model.init_args.{network}.init_args.{name} {value}"
        return f"{name}: {value} in the network's init_args"

    def larger_batches(self) -> str:
        """How to take batches of twice the size."""
        return f"--data.batch_size {2 * (self.batch_size or 16)}"

    def lower_rate(self, network: str, by: float = 10.0) -> str:
        """How to lower (or with ``by`` below 1 raise) a network's learning rate."""
        knob = next((knob for name, knob in self.learning_rate.items() if network in (name, *name.split("+"))), None)
        if knob is None:
            return f"the learning rate of {network} {'divided' if by >= 1 else 'multiplied'} by {max(by, 1 / by):g}"
        if knob.value is None:
            return f"--{knob.key}, {'divided' if by >= 1 else 'multiplied'} by {max(by, 1 / by):g}"
        return knob.set(knob.value / by)


class History:
    """What was measured, by name.

    Scalars: ``loss`` (the training loss, every step); whatever the model logs, under its own name (``train/…``,
    ``val/…``); ``lr/NETWORK``; ``probe/error``, ``probe/nothing``, ``probe/mean`` (mean squared error on the probe: of
    the network, of doing nothing, of the mean target).
    Tables hold a series for each layer: ``gradient``, ``missing``, ``update``, ``moved``, ``scale`` by parameter;
    ``dead``, ``saturated``, ``off_center``, ``offset`` by activation; ``carried``, ``leaked`` by network.

    Attributes:
        step: Optimizer steps done.
        cache: What was worked out from the measurements; forgotten with the next one.
        nonfinite: Step, name and detail of the first loss that was no number.
    """

    def __init__(self, facts: Facts | None = None) -> None:
        self.facts = facts or Facts()
        self.step = 0
        self.scalars: dict[str, Series] = {}
        self.tables: dict[str, dict[str, Series]] = {}
        self.first: dict[str, list[float]] = {}
        self.cache: dict[str, Any] = {}
        self.nonfinite: tuple[int, str] | None = None
        self.nonfinite_gradient: tuple[int, str] | None = None

    def add(self, name: str, step: int, value: float) -> None:
        """Append to a scalar."""
        self.step = max(self.step, step)
        self.scalars.setdefault(name, Series()).add(step, value)
        self.cache.clear()
        first = self.first.setdefault(name, [])
        if len(first) < 10:
            first.append(value)
        is_loss = name == "loss" or name.startswith("train/")
        if is_loss and not math.isfinite(value) and (self.nonfinite is None or step < self.nonfinite[0]):
            self.nonfinite = (step, name)

    def add_row(self, table: str, name: str, step: int, value: float) -> None:
        """Append to one layer's series of a table."""
        self.step = max(self.step, step)
        rows = self.tables.setdefault(table, {})
        if name not in rows:
            rows[name] = Series(kept=ROW)
        rows[name].add(step, value)
        self.cache.clear()

    def __getitem__(self, name: str) -> Series:
        """A scalar; empty when it was never measured."""
        return self.scalars.get(name) or Series()

    def table(self, name: str) -> dict[str, Series]:
        """A table; empty when it was never measured."""
        return self.tables.get(name, {})

    def start(self, name: str, count: int = 10) -> float:
        """The level at which a scalar began: the median of its first values; of fewer, where it shot up at once.

        Args:
            name: Of the scalar.
            count: Values to take, at most 10.

        Returns:
            NaN when none of them is a number.
        """
        values = [value for value in self.first.get(name, []) if math.isfinite(value)][:count]
        if not values:
            return math.nan
        level = median(values)
        for count in (3, 1):
            earlier = median(values[:count])
            if level - earlier > 2 * abs(earlier):
                level = earlier
        return level
