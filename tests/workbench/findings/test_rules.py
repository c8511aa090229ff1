"""Each fault as it would be measured is named, and nothing that only looks odd is called a fault.

The runs are synthetic: series of values as they would be measured, and what the rules say on the way.
"""

from __future__ import annotations

import itertools
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


def gan_info(*networks: str, **weights: float) -> ModelInfo:
    networks = networks or ("generator", "discriminator")
    parameters = {
        f"{network}.{layer}.weight": Parameter(network, "weight", 288, optimizer=number)
        for number, network in enumerate(networks)
        for layer in LAYERS
    }
    rates = {name: Setting(f"--model.init_args.{name}_optimizer.init_args.lr {{}}", 2e-4) for name in networks}
    weights = {"adversarial": 1.0, "reconstruction": 100.0} | weights
    losses = {name: Setting(f"--model.init_args.{name}_weight {{}}", value) for name, value in weights.items()}
    judges = frozenset({"discriminator"})
    return ModelInfo(parameters=parameters, learning_rate=rates, discriminators=judges, color=True, losses=losses)


def noisy(value: float, share: float, *seed: object) -> float:
    return value * (1 + share * random.Random(zlib.crc32(repr(seed).encode())).gauss(0, 1))


Value = float | Callable[..., float | None]
"""A constant, or a function of the step and, within a network, of the layer's name."""


@dataclass
class Run:
    """What a run measures at each step; by default that of a denoiser which learns well. None: it is not measured."""

    steps: int = 400
    model: ModelInfo = field(default_factory=model_info)
    loss: Value = lambda s: noisy(learned(s), 0.15, s)
    lr: Value = lambda s: 2e-3 * min(1, (s + 1) / 20)
    ratio: Value = lambda s, n: noisy(5e-3, 0.2, s, n)
    moved: Value = 1.0
    gradient: Value = lambda s, n: noisy(0.05, 0.3, s, n)
    scale: Value = lambda s, n: 0.05 if n.endswith("weight") else 0.01 * min(1, s / 100)
    carried: Value = 0.0
    tables: dict[str, Value] = field(default_factory=dict)
    error: Value | None = lambda s: 0.003 + 0.007 * math.exp(-s / 60)
    nothing: float = 0.0096
    mean: float = 0.06
    logged: dict[str, Value] = field(default_factory=dict)
    scores: dict[str, Value] = field(default_factory=dict)

    def findings(self) -> list[Finding]:
        """Everything that is named on the way, in order."""
        history, engine = History(self.model), RuleEngine(training_rules())
        found: list[Finding] = []
        for step in range(self.steps):
            self._train(history, step)
            if step < 10 or step % 10 == 0:
                self._measure(history, step)
            done = step + 1
            if done % 50 == 0 or step in (0, 20, 50, 100):
                self._validate(history, step)
            if done in (10, 20, 35, 50) or done % 50 == 0:
                found += engine.evaluate(history)
        return found

    def faults(self) -> list[str]:
        return [finding.code for finding in self.findings() if finding.is_fault]

    def fault(self) -> Finding:
        (finding,) = [finding for finding in self.findings() if finding.is_fault]
        return finding

    def _train(self, history: History, step: int) -> None:
        history.add("loss", step, at(self.loss, step))
        for network in self.model.networks():
            history.add(f"lr/{network}", step, at(self.lr, step))
        for name, value in self.logged.items() if step < 10 or step % 5 == 0 else ():
            history.add(name, step, at(value, step))

    def _measure(self, history: History, step: int) -> None:
        total: dict[str, float] = {}
        ratios: dict[str, list[float]] = {}
        for name, parameter in self.model.parameters.items():
            gradient, ratio = at(self.gradient, step, name), at(self.ratio, step, name)
            if gradient is None:
                history.add(name, step, 1.0, table="missing")
                continue
            values = {"gradient": gradient, "update": ratio}
            values |= {"moved": at(self.moved, step, name), "scale": at(self.scale, step, name)}
            for table, value in values.items():
                history.add(name, step, value, table)
            if parameter.role == "weight":
                ratios.setdefault(parameter.network, []).append(ratio)
            total[parameter.network] = math.hypot(total.get(parameter.network, 0.0), gradient)
        for network, found in ratios.items():
            finite = [value for value in found if not math.isnan(value)]
            history.add(f"update/{network}", step, median(finite) if finite else math.nan)
        for network, value in total.items():
            history.add(f"gradient/{network}", step, value)
            history.add(network, step, at(self.carried, step), table="carried")

    def _validate(self, history: History, step: int) -> None:
        for table, value in self.tables.items():
            for name in self.model.activations or self.model.networks():
                history.add(name, step, at(value, step, name), table)
        if self.error is not None:
            for name, value in (("error", self.error), ("nothing", self.nothing), ("mean", self.mean)):
                history.add(f"probe/{name}", step, at(value, step))
        for name, value in self.scores.items():
            history.add(name, step, at(value, step))


def at(value: Value, *place: object) -> float | None:
    return value(*place) if callable(value) else value


def swing(step: int, seed: int = 0) -> float:
    return math.sin(step / 17 + seed)


def gan(logged: dict[str, Value | None] | None = None, **more: Any) -> Run:
    """A healthy colorizing GAN: no side wins, losses go up and down, the reconstruction improves slowly."""
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
        "lr": 2e-4,
        "error": 0.0101,  # a colorizer may be further from the truth than gray
        "nothing": 0.01,
        "mean": 0.06,
        "logged": {name: value for name, value in (healthy | (logged or {})).items() if value is not None},
    }
    return Run(**{**given, **more})


STUCK = {"loss": lambda s: 0.2 if s > 20 else 0.4, "error": 0.06}
"""A run that has learned the mean of the targets, and nothing else."""
STILL = {"loss": 0.08, "error": 0.0096}
"""A run whose loss stays where it began."""
WORSE = {"train/reconstruction": 0.09}
"""Images that do not get better."""


def change(step, before, after):
    """A value that changes at a step."""
    return lambda s, n="": before if s < step else after


def learned(step):
    """The loss of a denoiser which learns well."""
    return 0.03 + 0.05 * math.exp(-step / 60)


def jitter(step, share):
    return 1 + share * random.Random(step).gauss(0, 1)


def by_layer(*sizes):
    return lambda s, n: sizes[LAYERS.index(n.split(".", 1)[1].rpartition(".")[0])]


def of_weights(value):
    """A size of the weights, at each step; biases stay 0."""
    return lambda s, n: value(s, n) if n.endswith("weight") else 0.0


def scores(discriminator, adversarial, real, fake):
    names = ("discriminator", "adversarial", "score_real", "score_fake")
    return {f"train/{name}": value for name, value in zip(names, (discriminator, adversarial, real, fake), strict=True)}


def toward(value):
    return lambda s: value * (1 - math.exp(-s / 10))


def falling(start, to=0.0, time=10):
    return lambda s: to + (start - to) * math.exp(-s / time)


def still_weights(ratio):
    return Run(lr=2e-9, ratio=ratio, moved=math.nan, loss=lambda s: 0.08 * jitter(s, 0.05), error=0.0096)


CHANCE = scores(1.33, 0.7, 0.2, 0.05)
"""A discriminator that tells apart a little, by chance."""
RUNS = {
    "learning-rate-high": {
        "wild steps": Run(ratio=3.0, loss=lambda s: 0.08 + 5 * min(s, 20), error=lambda s: 1e3 * s + 0.0096),
        "NaN after wild steps is the rate's, within four steps": Run(
            ratio=lambda s, n: 10.0 ** (s - 1) if s < 4 else math.nan,
            loss=lambda s: 0.08 * 100.0**s if s < 4 else math.nan,
            gradient=lambda s, n: 0.05 * 100.0**s if s < 4 else math.nan,
            error=lambda s: math.nan if s > 3 else 0.0096,
        ),
        "steps a third of the weights": Run(ratio=0.3, loss=lambda s: 0.15 * jitter(s, 0.3) if s else 0.08, error=0.05),
        "the rate jumps within the run": Run(
            lr=change(203, 2e-3, 2.0),
            loss=change(204, 0.04, math.nan),
            ratio=change(203, 5e-3, math.nan),
            gradient=change(203, 0.05, math.nan),
        ),
        "all units are dead after wild steps": Run(
            gradient=change(2, 0.5, 0.0),
            moved=change(2, 1.0, 0.0),
            ratio=change(2, 4.0, 0.0),
            loss=change(1, 0.08, 0.25),
            error=0.06,
        ),
        "a loss that climbs": Run(loss=lambda s: 0.08 * 1.01**s, error=lambda s: 0.0096 * 1.01**s),
    },
    "learning-rate-low": {f"steps of {ratio} of the weights": still_weights(ratio) for ratio in (3e-8, 0.0, 2e-5)},
    "regularization-dominates": {
        "decay": Run(
            logged={"decay/network": 20.0},
            model=model_info(weight_decay={"network": Setting("weight_decay {}", 1.0)}),
            **STILL,
        )
    },
    "parameters-unchanged": {
        "gradients are 0 everywhere": Run(gradient=0.0, moved=0.0, ratio=0.0, **STILL),
        "the optimizer does not step": Run(moved=0.0, ratio=0.0, **STILL),
    },
    "dead-units": {
        "two thirds are dead, and nothing is learned": Run(tables={"dead": 0.66}, **STUCK),
        "gradients of 0": Run(gradient=lambda s, n: 0.0 if "body" in n else 0.05, tables={"dead": 1.0}, **STILL),
    },
    "saturated-units": {"saturated, and nothing is learned": Run(tables={"saturated": 0.9}, **STUCK)},
    "vanishing-gradients": {
        "fading": Run(gradient=by_layer(1e-9, 1e-7, 1e-5, 1e-3, 0.1), **STUCK),
        "to 0": Run(gradient=by_layer(0.0, 0.0, 1e-12, 1e-6, 0.1), **STUCK),
        "not the rate: some layers move": Run(
            ratio=lambda s, n: 5e-3 if "tail" in n else 1e-7,
            gradient=lambda s, n: 0.05 if "tail" in n else 1e-7,
            **STILL,
        ),
    },
    "exploding-gradients": {
        "over time": Run(gradient=change(150, 0.05, 5.0), **STUCK),
        "from layer to layer": Run(gradient=by_layer(1e4, 1e3, 1e2, 10.0, 1.0), **STUCK),
        "outputs are far off before the first step: no rate is to blame, however large the steps are that follow": Run(
            error=lambda s: 1e4 if s == 0 else 50.0, loss=100.0, ratio=5.0, gradient=1e3
        ),
    },
    "weights-abnormal": {
        "weights keep doubling": Run(scale=of_weights(lambda s, n: 0.05 * 2 ** (s / 60)), **STUCK),
    },
    "activations-off-centre": {"means are far off center": Run(tables={"off_center": 1.0, "offset": 20.0}, **STUCK)},
    "loss-surge": {
        "the loss leaves its level": Run(loss=lambda s: (0.03 if s < 200 else 0.09) * jitter(s, 0.1) if s > 5 else 0.1)
    },
    "loss-flat": {"the loss stays at that of the mean": Run(**STUCK), "the output is the input": Run(**STILL)},
    "loss-oscillates": {"the loss swings": Run(loss=lambda s: 0.1 if (s // 10) % 2 else 0.4, error=0.03)},
    "overfitting": {
        "the validation loss rises while that of training falls": Run(
            steps=600,
            loss=lambda s: 0.08 * math.exp(-s / 150),
            scores={"val/loss": lambda s: 0.05 if s < 200 else 0.05 + 0.0001 * (s - 200)},
        )
    },
    "discriminator-too-strong": {
        "the discriminator is never wrong": gan(WORSE | scores(falling(1.38), lambda s: 0.7 + s / 20, 8.0, -8.0))
    },
    "discriminator-inert": {
        "it never tells them apart": gan(scores(1.386, 0.693, 0.001, 0.0)),
        "its weights do not move": gan(CHANCE, ratio=lambda s, n: 1e-7 if n.startswith("discriminator") else 5e-3),
    },
    "discriminator-overfits": {"memorized": gan(WORSE, scores={"game/sign_train": 0.9, "game/sign_val": -0.3})},
    "mode-collapse": {"one color": gan(scores={"game/diversity": 0.02, "game/color_strength": 0.8})},
    "labels-swapped": {
        **{
            f"labels are swapped, and it wins by {share}": gan(
                scores(falling(1.38, 1.38 * share), falling(0.69), toward(-2), toward(2))
            )
            for share in (0.1, 0.4)
        },
        "both sides are content": gan(scores(falling(1.38), falling(0.69), 2.0, -2.0)),
    },
}
HEALTHY = {
    "a denoiser that learns": Run(),
    "long arrived at its floor: the loss is flat, the rate near 0, and the output better than the input": Run(
        steps=1200,
        loss=lambda s: 0.03 * jitter(s, 0.2) if s > 100 else 0.08 - 0.0005 * s,
        lr=lambda s: 1e-3 * (1 + math.cos(math.pi * s / 1200)) / 2,
        ratio=lambda s, n: 5e-3 * (1 + math.cos(math.pi * s / 1200)) / 2 + 1e-9,
        error=lambda s: 0.003 if s > 50 else 0.009,
        scores={"val/loss": lambda s: 0.031 * jitter(s, 0.02), "val/psnr": lambda s: 29 * jitter(s, 0.002)},
    ),
    **{
        f"losses of single batches that differ severalfold, {noise}": Run(
            steps=800, loss=lambda s, n=noise: learned(s) * math.exp(n * random.Random(s).gauss(0, 1))
        )
        for noise in (0.3, 0.6)
    },
    "a slow start: for long not better than doing nothing, but on its way": Run(
        steps=600,
        loss=lambda s: (0.05 + 0.15 * math.exp(-s / 250)) * jitter(s, 0.1),
        ratio=5e-4,
        error=lambda s: 0.006 + 0.05 * math.exp(-s / 250),
    ),
    "a long warm-up": Run(
        steps=300,
        loss=lambda s: (0.08 if s < 150 else 0.03 + 0.05 * math.exp(-(s - 150) / 40)) * jitter(s, 0.1),
        lr=lambda s: 2e-3 * min(1, (s + 1) / 250),
        ratio=lambda s, n: 5e-3 * min(1, (s + 1) / 250) * 0.01 if s < 150 else 5e-3,
        error=lambda s: 0.0096 if s < 170 else 0.005,
    ),
    "minus decibels": Run(loss=lambda s: -20 - 9 * (1 - math.exp(-s / 60)) + random.Random(s).gauss(0, 0.7)),
    "some dead channels": Run(tables={"dead": lambda s, n: {"0": 0.33, "1": 0.6, "2": 0.0}[n.split(".")[2]]}),
    "an unknown task whose loss falls": Run(error=None, loss=lambda s: (1 + math.exp(-s / 100)) * jitter(s, 0.05)),
    "an unknown task fine-tuned with a small rate: it starts where it ends": Run(
        error=None, loss=lambda s: 0.5 * jitter(s, 0.1), ratio=2e-5, steps=600, model=model_info(pretrained=True)
    ),
    "a single measurement of uncleared gradients": Run(carried=lambda s: 1.0 if s == 5 else 0.0),
    "steps that a gradient scaler skips": Run(
        gradient=change(8, math.inf, 0.05), moved=change(8, 0.0, 1.0), ratio=change(8, 0.0, 5e-3)
    ),
    "one bad batch": Run(
        loss=lambda s: 0.3 if 200 <= s < 205 else learned(s) * jitter(s, 0.1),
        gradient=lambda s, n: 5.0 if 200 <= s < 205 else 0.05,
    ),
    "Adam's first steps without a warm-up": Run(
        lr=5e-3,
        ratio=lambda s, n: 0.3 / (1 + s) + 0.02,
        loss=lambda s: (0.12 if s < 8 else learned(s)) * jitter(s, 0.1),
    ),
    "a GAN in which no side wins": gan(steps=600),
    "a generator that fools the discriminator": gan(scores(1.6, 0.4, -0.2, lambda s: 0.3 if s > 10 else -0.3)),
    "a discriminator that wins while the images get better": gan(
        scores(falling(1.39, 0.01, 40), lambda s: 0.7 + s / 100, lambda s: s / 100, lambda s: -s / 100),
        steps=500,
        scores={"game/sign_train": 0.95, "game/sign_val": 0.2},
    ),
    "a discriminator that tells apart a little": gan(CHANCE),
    "a critic without bounds (Wasserstein), whose losses drift far from where they began": gan(
        scores(
            lambda s: 10 * math.exp(-s / 5) - 3 * (1 - math.exp(-s / 30)),
            lambda s: 0.1 + s / 10,
            lambda s: 3 - s / 10,
            lambda s: -s / 10,
        ),
        loss=lambda s: 10 + s / 10,
    ),
    "a colorizer that has not begun to color": gan(scores={"game/diversity": 0.03, "game/color_strength": 0.05}),
    "least squares in balance": gan(
        scores(falling(0.53, 0.13), falling(0.53, 0.13), 0.55, lambda s: 0.45 if s > 20 else 0.1)
    ),
    "a generator that trains alone": gan(scores(None, None, None, None), gradient=0.05, model=gan_info("generator")),
    "a loss that is switched off": gan(scores={"game/gradient_ratio": 1e9}, model=gan_info(reconstruction=0.0)),
}


@pytest.mark.parametrize(
    ("code", "run"), [pytest.param(code, run, id=name) for code, runs in RUNS.items() for name, run in runs.items()]
)
def test_a_fault_is_named_alone(code, run):
    assert run.faults() == [code]


@pytest.mark.parametrize("case", HEALTHY)
def test_what_looks_odd_and_is_healthy(case):
    assert HEALTHY[case].faults() == []


@pytest.mark.parametrize(
    ("code", "run"),
    [("learning-rate-high", Run(ratio=0.3)), ("saturated-units", Run(tables={"saturated": 0.9}))],
)
def test_what_does_no_harm_is_worth_a_note(code, run):
    assert [(f.code, f.severity) for f in run.findings()] == [(code, "note")]


def test_where_by_how_much_and_what_to_change():
    rate = Run(ratio=40.0, loss=lambda s: 0.08 + 5 * min(s, 20), error=lambda s: 1e3 * s).fault()
    assert rate.code == "learning-rate-high" and rate.step <= 20
    assert "--model.init_args.optimizer.init_args.lr 0.0002" in rate.advice
    finding = Run(tables={"dead": lambda s, n: 1.0 if "body.1" in n else 0.1}).fault()
    assert (finding.code, finding.where, finding.value) == ("dead-units", "network.body.1.act", 1.0)
    large = Run(scale=of_weights(lambda s, n: 5.0 if "body.0" in n else 0.05), **STUCK).fault()
    assert (large.code, large.where) == ("weights-abnormal", "network.body.0.weight")
    missing = Run(gradient=lambda s, n: None if n == "network.body.1.weight" else 0.05).fault()
    assert missing.code == "parameters-unchanged" and missing.where.startswith("network.body.1.weight")
    assert "gets no gradient" in missing.value
    until = {name: change(123, v, math.nan) for name, v in {"loss": 0.05, "ratio": 5e-3, "gradient": 0.05}.items()}
    spoilt = Run(error=0.005, **until).fault()
    assert (spoilt.code, spoilt.step) == ("nonfinite-loss", 123)
    penalized = Run(
        logged={"train/loss": 0.08, "train/l2_penalty": 0.8},
        error=0.0096,
        loss=0.88,
        model=model_info(penalties={"train/l2_penalty": Setting("--model.init_args.l2 {}", 0.01)}),
    ).fault()
    assert penalized.code == "regularization-dominates" and "--model.init_args.l2 0.0001" in penalized.advice
    for ratio, key in ((500.0, "adversarial_weight"), (1e-4, "reconstruction_weight")):
        finding = gan(scores={"game/gradient_ratio": ratio}).fault()
        assert finding.code == "adversarial-imbalance" and f"--model.init_args.{key}" in finding.advice


def test_means_off_center_without_a_norm_are_usual_and_a_rate_of_0_is_declared():
    tables = {"off_center": 0.8, "offset": 2.0}
    assert "activations-off-centre" not in Run(tables=tables, error=0.0096).faults()
    still = {"lr": 0.0, "moved": math.nan, "ratio": 0.0}
    assert "parameters-unchanged" not in Run(steps=100, **still).faults()


def test_what_is_not_trained_on_purpose():
    """A frozen backbone with dead units, a helper without an optimizer, and a tail that starts at 0, which blocks
    gradients in the first step only."""
    synthetic = Run(
        gradient=lambda s, n: 0.0 if s == 0 and "tail" not in n else 0.05,
        ratio=lambda s, n: math.nan if s == 0 and "tail.weight" in n else 5e-3,
        scale=lambda s, n: 1e-5 * 1.5 ** min(s, 20) if "tail" in n else 0.05,
        tables={"dead": lambda s, n: 1.0 if n == "backbone.act" else 0.0},
    )
    synthetic.model.activations["backbone.act"] = Activation("relu", 64, trained=False)
    synthetic.model.parameters["perceptual.vgg.0.weight"] = Parameter("perceptual", "weight", 27, None, helper=True)
    assert synthetic.faults() == []


FILLS = {
    "zeros": [0.0],
    "not a number": [math.nan],
    "infinite": [math.inf, -math.inf],
    "extremes": [0.0, -0.0, 1.0, -1.0, 1e-300, -1e300, 1e300, math.nan, math.inf, -math.inf],
}
SCALARS = (
    "loss lr/network lr/discriminator update/network update/discriminator gradient/network decay/network probe/error "
    "probe/nothing probe/mean game/diversity game/color_strength game/gradient_ratio game/sign_train game/sign_val "
    "train/loss train/discriminator train/adversarial train/reconstruction train/score_real train/score_fake "
    "train/l2_penalty val/loss val/psnr"
)
TABLES = "gradient missing update moved scale dead saturated off_center offset carried leaked"


@pytest.mark.parametrize("is_gan", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 40, 400])
@pytest.mark.parametrize("fill", FILLS)
def test_no_rule_can_end_a_run_whatever_was_measured(fill, length, is_gan):
    """All series empty, of one value, or long; of zeros, NaN, infinities, or a mixture with some of them missing."""
    draw = random.Random(length)
    names = [f"{network}.{n}.weight" for network, n in itertools.product(("network", "discriminator"), range(5))]
    model = ModelInfo(
        parameters={n: Parameter(n.split(".")[0], "weight", 9, draw.choice([0, None, 0])) for n in names},
        activations={"network.act": Activation("relu", 4)},
        learning_rate={"network": Setting("{}", 0.0)},
        penalties={"train/l2_penalty": Setting("{}")},
        weight_decay={"network": Setting("{}", 0.0)},
        losses={"adversarial": Setting("{}"), "reconstruction": Setting("{}", 1.0)},
        discriminators=frozenset({"discriminator"} if is_gan else ()),
        higher_is_better={"psnr": True},
        color=draw.random() < 0.5,
    )
    is_mixed = fill == "extremes"
    for _ in range(5 if is_mixed else 1):
        history = History(model)
        series = [(None, name) for name in SCALARS.split()]
        series += itertools.product(TABLES.split(), (*names, "network.act", "network", "discriminator"))
        for table, name in series:
            values = draw.choices(FILLS[fill], k=draw.randint(1, 6)) if is_mixed else FILLS[fill]
            for step in range(length if not is_mixed or draw.random() < 0.8 else draw.randint(0, length)):
                history.add(name, step, draw.choice(values), table)
        for rule in training_rules():
            rule.evaluate(history)
