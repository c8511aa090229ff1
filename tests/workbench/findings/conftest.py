"""Synthetic runs: series of values as they would be measured, and what the rules say on the way."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import pytest

from workbench.findings import Activation, Finding, History, ModelInfo, Parameter, RuleEngine, Setting, training_rules

LAYERS = ("head", "body.0", "body.1", "body.2", "tail")


def model_info(**more: Any) -> ModelInfo:
    parameters = {}
    for layer in LAYERS:
        parameters[f"network.{layer}.weight"] = Parameter("network", "weight", fan_in=288)
        parameters[f"network.{layer}.bias"] = Parameter("network", "bias")
    activations = {f"network.{layer}.act": Activation("relu", 32) for layer in LAYERS[1:4]}
    rate = {"network": Setting("--model.init_args.optimizer.init_args.lr {}", 2e-3)}
    return ModelInfo(parameters=parameters, activations=activations, learning_rate=rate, command_line=True, **more)


def gan_info() -> ModelInfo:
    networks = ("generator", "discriminator")
    parameters = {
        f"{network}.{layer}.weight": Parameter(network, "weight", 288, optimizer=number)
        for number, network in enumerate(networks)
        for layer in LAYERS
    }
    rates = {name: Setting(f"--model.init_args.{name}_optimizer.init_args.lr {{}}", 2e-4) for name in networks}
    weights = {"adversarial": 1.0, "reconstruction": 100.0}
    losses = {name: Setting(f"--model.init_args.{name}_weight {{}}", value) for name, value in weights.items()}
    judges = frozenset({"discriminator"})
    return ModelInfo(parameters=parameters, learning_rate=rates, discriminators=judges, color=True, losses=losses)


def noisy(value: float, share: float, *seed: object) -> float:
    return value * (1 + share * random.Random(zlib.crc32(repr(seed).encode())).gauss(0, 1))


@dataclass
class SyntheticRun:
    """What a run measures at each step; by default that of a denoiser which learns well.

    Every attribute is a function of the step (and of the layer); None leaves the measurement out.
    """

    steps: int = 400
    model: ModelInfo = field(default_factory=model_info)
    loss: Callable[[int], float] = lambda s: noisy(0.03 + 0.05 * math.exp(-s / 60), 0.15, s)
    lr: Callable[[int], float] = lambda s: 2e-3 * min(1, (s + 1) / 20)
    ratio: Callable[[int, str], float] = lambda s, n: noisy(5e-3, 0.2, s, n)
    moved: Callable[[int, str], float] = lambda s, n: 1.0
    gradient: Callable[[int, str], float | None] = lambda s, n: noisy(0.05, 0.3, s, n)
    scale: Callable[[int, str], float] = lambda s, n: 0.05 if n.endswith("weight") else 0.01 * min(1, s / 100)
    carried: Callable[[int], float] = lambda s: 0.0
    leaked: Callable[[int], float] | None = None
    tables: dict[str, Callable[[int, str], float]] = field(default_factory=dict)
    error: Callable[[int], float] | None = lambda s: 0.003 + 0.007 * math.exp(-s / 60)
    nothing: float = 0.0096
    mean: float = 0.06
    logged: dict[str, Callable[[int], float]] = field(default_factory=dict)
    scores: dict[str, Callable[[int], float]] = field(default_factory=dict)

    def findings(self) -> list[Finding]:
        """Everything that is named on the way, in order."""
        history, engine = History(self.model), RuleEngine(training_rules())
        found: list[Finding] = []
        for step in range(self.steps):
            self._train(history, step)
            done = step + 1
            if done % 50 == 0 or step in (0, 20, 50, 100):
                self._validate(history, step)
            if done in (10, 20, 35, 50) or done % 50 == 0:
                found += engine.evaluate(history)
        return found

    def faults(self) -> list[str]:
        return [finding.code for finding in self.findings() if finding.is_fault]

    def _train(self, history: History, step: int) -> None:
        history.add("loss", step, self.loss(step))
        for network in self.model.networks():
            history.add(f"lr/{network}", step, self.lr(step))
        for name, value in self.logged.items() if step < 10 or step % 5 == 0 else ():
            history.add(name, step, value(step))
        if step < 10 or step % 10 == 0:
            self._measure(history, step)

    def _measure(self, history: History, step: int) -> None:
        total: dict[str, float] = {}
        ratios: dict[str, list[float]] = {}
        for name, parameter in self.model.parameters.items():
            gradient = self.gradient(step, name)
            if gradient is None:
                history.add(name, step, 1.0, table="missing")
                continue
            values = {"gradient": gradient, "update": self.ratio(step, name), "moved": self.moved(step, name)}
            for table, value in {**values, "scale": self.scale(step, name)}.items():
                history.add(name, step, value, table)
            if parameter.role == "weight":
                ratios.setdefault(parameter.network, []).append(self.ratio(step, name))
            total[parameter.network] = math.hypot(total.get(parameter.network, 0.0), gradient)
        for network, values in ratios.items():
            finite = [value for value in values if not math.isnan(value)]
            history.add(f"update/{network}", step, median(finite) if finite else math.nan)
        for network, value in total.items():
            history.add(f"gradient/{network}", step, value)
            history.add(network, step, self.carried(step), table="carried")
        if self.leaked is not None:
            history.add("generator", step, self.leaked(step), table="leaked")

    def _validate(self, history: History, step: int) -> None:
        for table, value in self.tables.items():
            for name in self.model.activations or self.model.networks():
                history.add(name, step, value(step, name), table)
        if self.error is not None:
            for name, value in (("error", self.error(step)), ("nothing", self.nothing), ("mean", self.mean)):
                history.add(f"probe/{name}", step, value)
        for name, value in self.scores.items():
            history.add(name, step, value(step))


@pytest.fixture
def run() -> type[SyntheticRun]:
    return SyntheticRun


@pytest.fixture
def gan() -> Callable[..., SyntheticRun]:
    """A healthy colorizing GAN: no side wins, losses go up and down, the reconstruction improves slowly."""

    def swing(step: int, seed: int = 0) -> float:
        return math.sin(step / 17 + seed)

    def make(logged: dict[str, Callable[[int], float]] | None = None, **more: Any) -> SyntheticRun:
        healthy = {
            "train/discriminator": lambda s: noisy(1.1 + 0.25 * swing(s) + 0.28 * math.exp(-s / 10), 0.05, s),
            "train/adversarial": lambda s: noisy(0.9 + 0.4 * swing(s, 2) - 0.2 * math.exp(-s / 10), 0.05, s + 1),
            "train/score_real": lambda s: (0.5 + 0.5 * swing(s)) * (1 - math.exp(-s / 10)),
            "train/score_fake": lambda s: (-0.4 - 0.3 * swing(s)) * (1 - math.exp(-s / 10)),
            "train/reconstruction": lambda s: noisy(0.09 + 0.02 * math.exp(-s / 80), 0.1, s + 2),
        }
        given = {
            "model": gan_info(),
            "loss": lambda s: noisy(10 + 1 * math.exp(-s / 80) + 0.5 * swing(s), 0.1, s),
            "lr": lambda s: 2e-4,
            "error": lambda s: 0.0101,  # a colorizer may be further from the truth than gray
            "nothing": 0.01,
            "mean": 0.06,
            "logged": {**healthy, **(logged or {})},
        }
        return SyntheticRun(**{**given, **more})

    return make
