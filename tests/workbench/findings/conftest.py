"""Runs that never were: series of figures as monitors would measure them, and what the rules say on the way."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import pytest

from workbench.findings import Activation, Facts, Finding, History, Knob, Parameter, RuleEngine, training_rules

LAYERS = ("head", "body.0", "body.1", "body.2", "tail")


def facts(**more: Any) -> Facts:
    parameters = {}
    for layer in LAYERS:
        parameters[f"network.{layer}.weight"] = Parameter("network", "weight", fan_in=288)
        parameters[f"network.{layer}.bias"] = Parameter("network", "bias")
    activations = {f"network.{layer}.act": Activation("relu", 32) for layer in LAYERS[1:4]}
    rate = {"network": Knob("model.init_args.optimizer.init_args.lr", 2e-3)}
    return Facts(parameters=parameters, activations=activations, learning_rate=rate, **more)


def game_facts(**more: Any) -> Facts:
    parameters = {}
    for number, network in enumerate(("generator", "discriminator")):
        for layer in LAYERS:
            parameters[f"{network}.{layer}.weight"] = Parameter(network, "weight", 288, optimizer=number)
    rates = {n: Knob(f"model.init_args.{n}_optimizer.init_args.lr", 2e-4) for n in ("generator", "discriminator")}
    losses = {n: Knob(f"model.init_args.{n}_weight", w) for n, w in (("adversarial", 1.0), ("reconstruction", 100.0))}
    given = {"discriminators": frozenset({"discriminator"}), "adversarial": True, "color": True, "losses": losses}
    return Facts(parameters=parameters, learning_rate=rates, **{**given, **more})


def seed_of(step: int, name: str) -> int:
    return zlib.crc32(f"{step} {name}".encode())


def noisy(value: float, share: float, seed: int) -> float:
    return value * (1 + share * random.Random(seed).gauss(0, 1))


@dataclass
class Story:
    """What a run measures at each step; by default that of a denoiser which learns well.

    Every attribute is a function of the step (and of the layer); None leaves the measurement out.
    """

    steps: int = 400
    facts: Facts = field(default_factory=facts)
    loss: Callable[[int], float] = lambda s: noisy(0.03 + 0.05 * math.exp(-s / 60), 0.15, s)
    lr: Callable[[int], float] = lambda s: 2e-3 * min(1, (s + 1) / 20)
    ratio: Callable[[int, str], float] = lambda s, n: noisy(5e-3, 0.2, seed_of(s, n))
    moved: Callable[[int, str], float] = lambda s, n: 1.0
    gradient: Callable[[int, str], float | None] = lambda s, n: noisy(0.05, 0.3, seed_of(s, n))
    scale: Callable[[int, str], float] = lambda s, n: 0.05 if n.endswith("weight") else 0.01 * min(1, s / 100)
    carried: Callable[[int], float] = lambda s: 0.0
    tables: dict[str, Callable[[int, str], float]] = field(default_factory=dict)
    error: Callable[[int], float] | None = lambda s: 0.003 + 0.007 * math.exp(-s / 60)
    nothing: float = 0.0096
    mean: float = 0.06
    logged: dict[str, Callable[[int], float]] = field(default_factory=dict)
    scores: dict[str, Callable[[int], float]] = field(default_factory=dict)
    every_validation: int = 50
    judge: RuleEngine = field(default_factory=lambda: RuleEngine(training_rules()))

    def tell(self) -> list[Finding]:
        """Everything that is named on the way, in order."""
        self.history = history = History(self.facts)
        found: list[Finding] = []
        for step in range(self.steps):
            self._train(history, step)
            done = step + 1
            if done % self.every_validation == 0 or step in (0, 20, 50, 100):
                self._look_inside(history, step)
            if done in (10, 20, 35, 50) or done % 50 == 0:
                found += self.judge.look(history)
        return found

    def faults(self) -> list[str]:
        return [finding.code for finding in self.tell() if finding.is_fault]

    def _train(self, history: History, step: int) -> None:
        history.add("loss", step, self.loss(step))
        for network in self.facts.networks():
            history.add(f"lr/{network}", step, self.lr(step))
        if step < 10 or step % 5 == 0:
            for name, value in self.logged.items():
                history.add(name, step, value(step))
        if step < 10 or step % 10 == 0:
            self._measure(history, step)

    def _measure(self, history: History, step: int) -> None:
        total: dict[str, float] = {}
        ratios: dict[str, list[float]] = {}
        for name, parameter in self.facts.parameters.items():
            gradient = self.gradient(step, name)
            if gradient is None:
                history.add_row("missing", name, step, 1.0)
                continue
            history.add_row("gradient", name, step, gradient)
            history.add_row("update", name, step, self.ratio(step, name))
            history.add_row("moved", name, step, self.moved(step, name))
            history.add_row("scale", name, step, self.scale(step, name))
            if parameter.role == "weight":
                ratios.setdefault(parameter.network, []).append(self.ratio(step, name))
            total[parameter.network] = math.hypot(total.get(parameter.network, 0.0), gradient)
        for network, values in ratios.items():
            numbers = [value for value in values if not math.isnan(value)]
            history.add(f"update/{network}", step, median(numbers) if numbers else math.nan)
        for network, value in total.items():
            history.add(f"gradient/{network}", step, value)
            history.add_row("carried", network, step, self.carried(step))

    def _look_inside(self, history: History, step: int) -> None:
        for table, value in self.tables.items():
            for name in self.facts.activations or self.facts.networks():
                history.add_row(table, name, step, value(step, name))
        if self.error is not None:
            for name, value in (("error", self.error(step)), ("nothing", self.nothing), ("mean", self.mean)):
                history.add(f"probe/{name}", step, value)
        for name, value in self.scores.items():
            history.add(name, step, value(step))


@pytest.fixture
def story() -> type[Story]:
    return Story


@pytest.fixture
def game(story: type[Story]) -> Callable[..., Story]:
    """A colorizer's healthy game: nobody wins, losses go up and down, reconstruction improves slowly."""

    def swing(step: int, seed: int = 0) -> float:
        return math.sin(step / 17 + seed)

    def make(logged: dict[str, Callable[[int], float]] | None = None, **more: Any) -> Story:
        healthy = {
            "train/discriminator": lambda s: noisy(1.1 + 0.25 * swing(s) + 0.28 * math.exp(-s / 10), 0.05, s),
            "train/adversarial": lambda s: noisy(0.9 + 0.4 * swing(s, 2) - 0.2 * math.exp(-s / 10), 0.05, s + 1),
            "train/score_real": lambda s: (0.5 + 0.5 * swing(s)) * (1 - math.exp(-s / 10)),
            "train/score_fake": lambda s: (-0.4 - 0.3 * swing(s)) * (1 - math.exp(-s / 10)),
            "train/reconstruction": lambda s: noisy(0.09 + 0.02 * math.exp(-s / 80), 0.1, s + 2),
        }
        given = {
            "facts": game_facts(),
            "loss": lambda s: noisy(10 + 1 * math.exp(-s / 80) + 0.5 * swing(s), 0.1, s),
            "lr": lambda s: 2e-4,
            "error": lambda s: 0.0101,  # a colorizer may be further from the truth than gray
            "nothing": 0.01,
            "mean": 0.06,
            "logged": {**healthy, **(logged or {})},
        }
        return story(**{**given, **more})

    return make
