"""Each fault as it would be measured is named, and nothing that only looks odd is called a fault."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest

from workbench.findings import Activation, History, ModelInfo, Parameter, Setting, training_rules

STUCK = {"loss": lambda s: 0.2 if s > 20 else 0.4, "error": lambda s: 0.06}
"""A run that has learned the mean of the targets, and nothing else."""
STILL = {"loss": lambda s: 0.08, "error": lambda s: 0.0096}
"""A run whose loss stays where it began."""
WORSE = {"train/reconstruction": lambda s: 0.09}
"""Images that do not get better."""


def jitter(step, share):
    return 1 + share * random.Random(step).gauss(0, 1)


def by_layer(**sizes):
    return lambda s, n: sizes[n.split(".", 1)[1].rpartition(".")[0].replace(".", "_")]


def scores(discriminator, adversarial, real, fake):
    names = ("discriminator", "adversarial", "score_real", "score_fake")
    return {f"train/{name}": value for name, value in zip(names, (discriminator, adversarial, real, fake), strict=True)}


def toward(value):
    return lambda s: value * (1 - math.exp(-s / 10))


def falling(start, to=0.0, time=10):
    return lambda s: to + (start - to) * math.exp(-s / time)


FAULTS = {
    # Learning rate
    "the rate throws the weights about": (
        "learning-rate-high",
        {"ratio": lambda s, n: 3.0, "loss": lambda s: 0.08 + 5 * min(s, 20), "error": lambda s: 1e3 * s + 0.0096},
    ),
    "NaN after wild steps is the rate's, within four steps": (
        "learning-rate-high",
        {
            "ratio": lambda s, n: 10.0 ** (s - 1) if s < 4 else math.nan,
            "loss": lambda s: 0.08 * 100.0**s if s < 4 else math.nan,
            "gradient": lambda s, n: 0.05 * 100.0**s if s < 4 else math.nan,
            "error": lambda s: math.nan if s > 3 else 0.0096,
        },
    ),
    "steps a third of the weights, and a loss that stays": (
        "learning-rate-high",
        {"ratio": lambda s, n: 0.3, "loss": lambda s: 0.15 * jitter(s, 0.3) if s else 0.08, "error": lambda s: 0.05},
    ),
    "the rate jumps within the run": (
        "learning-rate-high",
        {
            "lr": lambda s: 2e-3 if s < 203 else 2.0,
            "loss": lambda s: 0.04 if s < 204 else math.nan,
            "ratio": lambda s, n: 5e-3 if s < 203 else math.nan,
            "gradient": lambda s, n: 0.05 if s < 203 else math.nan,
        },
    ),
    "gradients that come to nothing after wild steps: all units are dead by then": (
        "learning-rate-high",
        {
            "gradient": lambda s, n: 0.5 if s < 2 else 0.0,
            "moved": lambda s, n: 1.0 if s < 2 else 0.0,
            "ratio": lambda s, n: 4.0 if s < 2 else 0.0,
            "loss": lambda s: 0.08 if s == 0 else 0.25,
            "error": lambda s: 0.06,
        },
    ),
    **{
        f"a rate that moves weights by {ratio}": (
            "learning-rate-low",
            {
                "lr": lambda s: 2e-9,
                "ratio": lambda s, n, ratio=ratio: ratio,
                "moved": lambda s, n: math.nan,
                "loss": lambda s: 0.08 * jitter(s, 0.05),
                "error": lambda s: 0.0096,
            },
        )
        for ratio in (3e-8, 0.0, 2e-5)
    },
    # Wiring
    "gradients are 0 everywhere": (
        "parameters-unchanged",
        {"gradient": lambda s, n: 0.0, "moved": lambda s, n: 0.0, "ratio": lambda s, n: 0.0, **STILL},
    ),
    "a tensor has no gradient": (
        "parameters-unchanged",
        {"gradient": lambda s, n: None if n == "network.body.1.weight" else 0.05},
    ),
    "the optimizer does not step": (
        "parameters-unchanged",
        {"moved": lambda s, n: 0.0, "ratio": lambda s, n: 0.0, **STILL},
    ),
    # Units and gradients
    "two thirds are dead, and nothing is learned": ("dead-units", {"tables": {"dead": lambda s, n: 0.66}, **STUCK}),
    "dead units explain gradients of 0": (
        "dead-units",
        {"gradient": lambda s, n: 0.0 if "body" in n else 0.05, "tables": {"dead": lambda s, n: 1.0}, **STILL},
    ),
    "saturated, and nothing is learned": ("saturated-units", {"tables": {"saturated": lambda s, n: 0.9}, **STUCK}),
    "gradients fade on their way back": (
        "vanishing-gradients",
        {"gradient": by_layer(head=1e-9, body_0=1e-7, body_1=1e-5, body_2=1e-3, tail=0.1), **STUCK},
    ),
    "gradients of 0 at the end of fading ones": (
        "vanishing-gradients",
        {"gradient": by_layer(head=0.0, body_0=0.0, body_1=1e-12, body_2=1e-6, tail=0.1), **STUCK},
    ),
    "gradients outgrow themselves": (
        "exploding-gradients",
        {"gradient": lambda s, n: 0.05 if s < 150 else 5.0, **STUCK},
    ),
    "gradients grow from layer to layer": (
        "exploding-gradients",
        {"gradient": by_layer(head=1e4, body_0=1e3, body_1=1e2, body_2=10.0, tail=1.0), **STUCK},
    ),
    "outputs are far off before the first step: no rate is to blame, however large the steps are that follow": (
        "exploding-gradients",
        {
            "error": lambda s: 1e4 if s == 0 else 50.0,
            "loss": lambda s: 100.0,
            "ratio": lambda s, n: 5.0,
            "gradient": lambda s, n: 1e3,
        },
    ),
    "weights keep doubling": (
        "weights-abnormal",
        {"scale": lambda s, n: 0.05 * 2 ** (s / 60) if n.endswith("weight") else 0.0, **STUCK},
    ),
    "means are far off center": (
        "activations-off-centre",
        {"tables": {"off_center": lambda s, n: 1.0, "offset": lambda s, n: 20.0}, **STUCK},
    ),
    # The course of the loss
    "the loss leaves its level": (
        "loss-surge",
        {"loss": lambda s: (0.03 if s < 200 else 0.09) * jitter(s, 0.1) if s > 5 else 0.1},
    ),
    "the loss stays at that of the mean": ("loss-flat", STUCK),
    "the output is the input": ("loss-flat", STILL),
    "the loss swings": ("loss-oscillates", {"loss": lambda s: 0.1 if (s // 10) % 2 else 0.4, "error": lambda s: 0.03}),
    "the validation loss rises while that of training falls": (
        "overfitting",
        {
            "steps": 600,
            "loss": lambda s: 0.08 * math.exp(-s / 150),
            "scores": {"val/loss": lambda s: 0.05 if s < 200 else 0.05 + 0.0001 * (s - 200)},
        },
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_alone(run, case):
    code, measured = FAULTS[case]
    assert run(**measured).faults() == [code]


def only_fault(run):
    (finding,) = [finding for finding in run.findings() if finding.is_fault]
    return finding


def test_first_come_causes_among_several_faults(run):
    climbing = run(loss=lambda s: 0.08 * 1.01**s, error=lambda s: 0.0096 * 1.01**s)
    assert climbing.faults()[0] == "learning-rate-high"
    still = {
        "ratio": lambda s, n: 5e-3 if "tail" in n else 1e-7,
        "gradient": lambda s, n: 0.05 if "tail" in n else 1e-7,
    }
    assert run(**still, **STILL).faults()[0] == "vanishing-gradients", "not the rate: some layers move"


def test_a_high_rate_is_found_early_with_a_key_and_a_value(run):
    finding = only_fault(run(ratio=lambda s, n: 40.0, loss=lambda s: 0.08 + 5 * min(s, 20), error=lambda s: 1e3 * s))
    assert finding.code == "learning-rate-high" and finding.step <= 20
    assert "--model.init_args.optimizer.init_args.lr 0.0002" in finding.advice


def test_what_does_no_harm_is_worth_a_note(run):
    for code, measured in {
        "learning-rate-high": {"ratio": lambda s, n: 0.3},
        "saturated-units": {"tables": {"saturated": lambda s, n: 0.9}},
    }.items():
        assert [(f.code, f.severity) for f in run(**measured).findings()] == [(code, "note")]


def test_where_and_by_how_much(run):
    finding = only_fault(run(tables={"dead": lambda s, n: 1.0 if "body.1" in n else 0.1}))
    assert (finding.code, finding.where, finding.value) == ("dead-units", "network.body.1.act", 1.0)
    large = run(scale=lambda s, n: (5.0 if "body.0" in n else 0.05) if n.endswith("weight") else 0.0, **STUCK)
    assert (only_fault(large).code, only_fault(large).where) == ("weights-abnormal", "network.body.0.weight")
    missing = only_fault(run(gradient=lambda s, n: None if n == "network.body.1.weight" else 0.05))
    assert missing.where.startswith("network.body.1.weight") and "gets no gradient" in missing.value
    until = {name: lambda s, n, v=v: v if s < 123 else math.nan for name, v in (("ratio", 5e-3), ("gradient", 0.05))}
    spoilt = run(loss=lambda s: 0.05 if s < 123 else math.nan, error=lambda s: 0.005, **until)
    assert (only_fault(spoilt).code, only_fault(spoilt).step) == ("nonfinite-loss", 123)


def test_a_tensor_that_no_optimizer_holds(run):
    synthetic, name = run(), "network.body.2.weight"
    synthetic.model.parameters[name] = replace(synthetic.model.parameters[name], optimizer=None)
    finding = only_fault(synthetic)
    assert finding.code == "parameters-unchanged" and "no optimizer holds it" in finding.value


def test_pulls_towards_0_that_outweigh_the_data(run):
    logged = {"train/loss": lambda s: 0.08, "train/l2_penalty": lambda s: 0.8}
    synthetic = run(logged=logged, error=lambda s: 0.0096, loss=lambda s: 0.88)
    synthetic.model.penalties["train/l2_penalty"] = Setting("--model.init_args.l2 {}", 0.01)
    finding = only_fault(synthetic)
    assert finding.code == "regularization-dominates" and "--model.init_args.l2 0.0001" in finding.advice
    synthetic = run(logged={"decay/network": lambda s: 20.0}, **STILL)
    synthetic.model.weight_decay["network"] = Setting("weight_decay {}", 1.0)
    assert synthetic.faults() == ["regularization-dominates"]


GAN_FAULTS = {
    "the discriminator is never wrong": (
        "discriminator-too-strong",
        {**WORSE, **scores(falling(1.38), lambda s: 0.7 + s / 20, lambda s: 8.0, lambda s: -8.0)},
    ),
    "it never tells them apart": (
        "discriminator-inert",
        scores(lambda s: 1.386, lambda s: 0.693, lambda s: 0.001, lambda s: 0.0),
    ),
    **{
        f"labels are swapped, and it wins by {win}": (
            "labels-swapped",
            scores(falling(1.38, 1.38 * win), falling(0.69), toward(-2), toward(2)),
        )
        for win in (0.1, 0.4)
    },
    "labels are swapped together with what is logged: both sides are content": (
        "labels-swapped",
        scores(falling(1.38), falling(0.69), lambda s: 2.0, lambda s: -2.0),
    ),
}


@pytest.mark.parametrize("case", GAN_FAULTS)
def test_a_fault_of_a_gan_is_named_first(gan, case):
    code, logged = GAN_FAULTS[case]
    assert gan(logged).faults()[0] == code


def test_a_discriminator_whose_weights_do_not_move_and_that_tells_apart_a_little_by_chance(gan):
    still = scores(lambda s: 1.33, lambda s: 0.7, lambda s: 0.2, lambda s: 0.05)
    synthetic = gan(still, ratio=lambda s, n: 1e-7 if n.startswith("discriminator") else 5e-3)
    assert synthetic.faults() == ["discriminator-inert"]
    assert gan(still).faults() == []


def test_faults_of_a_gan_on_the_probe(gan):
    memorized = {"game/sign_train": lambda s: 0.9, "game/sign_val": lambda s: -0.3}
    assert gan(WORSE, scores=memorized).faults() == ["discriminator-overfits"]
    collapsed = {"game/diversity": lambda s: 0.02, "game/color_strength": lambda s: 0.8}
    assert gan(scores=collapsed).faults() == ["mode-collapse"]


@pytest.mark.parametrize(("ratio", "key"), [(500.0, "adversarial_weight"), (1e-4, "reconstruction_weight")])
def test_one_loss_that_dominates_the_other(gan, ratio, key):
    finding = only_fault(gan(scores={"game/gradient_ratio": lambda s: ratio}))
    assert finding.code == "adversarial-imbalance" and f"--model.init_args.{key}" in finding.advice


HEALTHY = {
    "a denoiser that learns": {},
    "long arrived at its floor: the loss is flat, the rate near 0, and the output better than the input": {
        "steps": 1200,
        "loss": lambda s: 0.03 * jitter(s, 0.2) if s > 100 else 0.08 - 0.0005 * s,
        "lr": lambda s: 1e-3 * (1 + math.cos(math.pi * s / 1200)) / 2,
        "ratio": lambda s, n: 5e-3 * (1 + math.cos(math.pi * s / 1200)) / 2 + 1e-9,
        "error": lambda s: 0.003 if s > 50 else 0.009,
        "scores": {"val/loss": lambda s: 0.031 * jitter(s, 0.02), "val/psnr": lambda s: 29 * jitter(s, 0.002)},
    },
    **{
        f"losses of single batches that differ severalfold, {noise}": {
            "steps": 800,
            "loss": lambda s, n=noise: (0.03 + 0.05 * math.exp(-s / 60)) * math.exp(n * random.Random(s).gauss(0, 1)),
        }
        for noise in (0.3, 0.6)
    },
    "a slow start: for long not better than doing nothing, but on its way": {
        "steps": 600,
        "loss": lambda s: (0.05 + 0.15 * math.exp(-s / 250)) * jitter(s, 0.1),
        "ratio": lambda s, n: 5e-4,
        "error": lambda s: 0.006 + 0.05 * math.exp(-s / 250),
    },
    "a long warm-up": {
        "steps": 300,
        "loss": lambda s: (0.08 if s < 150 else 0.03 + 0.05 * math.exp(-(s - 150) / 40)) * jitter(s, 0.1),
        "lr": lambda s: 2e-3 * min(1, (s + 1) / 250),
        "ratio": lambda s, n: 5e-3 * min(1, (s + 1) / 250) * 0.01 if s < 150 else 5e-3,
        "error": lambda s: 0.0096 if s < 170 else 0.005,
    },
    "a loss below 0, minus decibels": {
        "loss": lambda s: -20 - 9 * (1 - math.exp(-s / 60)) + random.Random(s).gauss(0, 0.7)
    },
    "dead channels here and there while the output gets better": {
        "tables": {"dead": lambda s, n: {"0": 0.33, "1": 0.6, "2": 0.0}[n.split(".")[2]]}
    },
    "an unknown task whose loss falls": {"error": None, "loss": lambda s: (1 + math.exp(-s / 100)) * jitter(s, 0.05)},
    "a single measurement of uncleared gradients": {"carried": lambda s: 1.0 if s == 5 else 0.0},
    "steps that a gradient scaler skips: gradients are infinite, and nothing moves": {
        "gradient": lambda s, n: math.inf if s < 8 else 0.05,
        "moved": lambda s, n: 0.0 if s < 8 else 1.0,
        "ratio": lambda s, n: 0.0 if s < 8 else 5e-3,
    },
    "one bad batch": {
        "loss": lambda s: 0.3 if 200 <= s < 205 else (0.03 + 0.05 * math.exp(-s / 60)) * jitter(s, 0.1),
        "gradient": lambda s, n: 5.0 if 200 <= s < 205 else 0.05,
    },
    "Adam's first steps without a warm-up": {
        "lr": lambda s: 5e-3,
        "ratio": lambda s, n: 0.3 / (1 + s) + 0.02,
        "loss": lambda s: (0.12 if s < 8 else 0.03 + 0.05 * math.exp(-s / 60)) * jitter(s, 0.1),
    },
}


@pytest.mark.parametrize("case", HEALTHY)
def test_what_looks_odd_and_is_healthy(run, case):
    assert run(**HEALTHY[case]).faults() == []


def test_means_off_center_without_a_norm_are_usual_and_a_rate_of_0_is_declared(run):
    tables = {"off_center": lambda s, n: 0.8, "offset": lambda s, n: 2.0}
    assert "activations-off-centre" not in run(tables=tables, error=lambda s: 0.0096).faults()
    still = {"lr": lambda s: 0.0, "moved": lambda s, n: math.nan, "ratio": lambda s, n: 0.0}
    assert "parameters-unchanged" not in run(steps=100, **still).faults()


def test_what_is_not_trained_on_purpose(run):
    """A frozen backbone with dead units, a helper without an optimizer, and a tail that starts at 0, which blocks
    gradients in the first step only."""
    synthetic = run(
        gradient=lambda s, n: 0.0 if s == 0 and "tail" not in n else 0.05,
        ratio=lambda s, n: math.nan if s == 0 and "tail.weight" in n else 5e-3,
        scale=lambda s, n: 1e-5 * 1.5 ** min(s, 20) if "tail" in n else 0.05,
        tables={"dead": lambda s, n: 1.0 if n == "backbone.act" else 0.0},
    )
    synthetic.model.activations["backbone.act"] = Activation("relu", 64, trained=False)
    synthetic.model.parameters["perceptual.vgg.0.weight"] = Parameter("perceptual", "weight", 27, None, helper=True)
    assert synthetic.faults() == []


def test_an_unknown_task_fine_tuned_with_a_small_rate_starts_where_it_ends(run):
    synthetic = run(error=None, loss=lambda s: 0.5 * jitter(s, 0.1), ratio=lambda s, n: 2e-5, steps=600)
    synthetic.model.pretrained = True
    assert synthetic.faults() == []


HEALTHY_GANS = {
    "no side wins": {"steps": 600},
    "a generator that fools the discriminator for a while, which is punished for it: its loss is high": {
        "logged": scores(lambda s: 1.6, lambda s: 0.4, lambda s: -0.2, lambda s: 0.3 if s > 10 else -0.3)
    },
    "a discriminator that wins while the images get better": {
        "logged": scores(falling(1.39, 0.01, 40), lambda s: 0.7 + s / 100, lambda s: s / 100, lambda s: -s / 100),
        "steps": 500,
        "scores": {"game/sign_train": lambda s: 0.95, "game/sign_val": lambda s: 0.2},
    },
    "a critic without bounds (Wasserstein), whose losses drift far from where they began": {
        "logged": scores(
            lambda s: 10 * math.exp(-s / 5) - 3 * (1 - math.exp(-s / 30)),
            lambda s: 0.1 + s / 10,
            lambda s: 3 - s / 10,
            lambda s: -s / 10,
        ),
        "loss": lambda s: 10 + s / 10,
    },
    "a colorizer that has not begun to color": {
        "scores": {"game/diversity": lambda s: 0.03, "game/color_strength": lambda s: 0.05}
    },
    "least squares in balance: both losses fall together to an eighth": {
        "logged": scores(falling(0.53, 0.13), falling(0.53, 0.13), lambda s: 0.55, lambda s: 0.45 if s > 20 else 0.1)
    },
}


@pytest.mark.parametrize("case", HEALTHY_GANS)
def test_healthy_gans(gan, case):
    assert gan(**HEALTHY_GANS[case]).faults() == []


def test_a_generator_that_trains_alone(gan):
    synthetic = gan(gradient=lambda s, n: 0.05)
    for name in ("train/discriminator", "train/adversarial", "train/score_real", "train/score_fake"):
        del synthetic.logged[name]
    parameters = synthetic.model.parameters
    synthetic.model.parameters = {n: p for n, p in parameters.items() if p.network == "generator"}
    assert synthetic.faults() == []


def test_a_loss_that_is_switched_off_on_purpose_is_no_imbalance(gan):
    synthetic = gan(scores={"game/gradient_ratio": lambda s: 1e9})
    synthetic.model.losses["reconstruction"] = Setting("", 0.0)
    assert synthetic.faults() == []


def test_advice_in_a_script_names_no_keys_of_a_command_line(run):
    for code, measured in FAULTS.values():
        synthetic = run(**measured)
        synthetic.model.command_line = False
        synthetic.model.learning_rate = {"network": Setting("the optimizer's lr = {}", 2e-3)}
        found = {finding.code: finding.advice for finding in synthetic.findings() if finding.is_fault}
        assert "--" not in found[code] and "init_args" not in found[code], found[code]


EXTREMES = (0.0, -0.0, 1.0, -1.0, 1e-300, -1e300, 1e300, math.nan, math.inf, -math.inf)
SCALARS = (
    "loss lr/network lr/discriminator update/network update/discriminator gradient/network decay/network probe/error "
    "probe/nothing probe/mean game/diversity game/color_strength game/gradient_ratio game/sign_train game/sign_val "
    "train/loss train/discriminator train/adversarial train/reconstruction train/score_real train/score_fake "
    "train/l2_penalty val/loss val/psnr"
)
TABLES = "gradient missing update moved scale dead saturated off_center offset carried leaked"


@pytest.mark.parametrize("seed", range(30))
def test_no_rule_can_end_a_run_whatever_was_measured(seed):
    """Series of zeros, NaN, infinities and huge values, missing or of any length; for a GAN and a single network."""
    draw = random.Random(seed)
    names = [f"{network}.{n}.weight" for network, n in itertools.product(("network", "discriminator"), range(5))]
    model = ModelInfo(
        parameters={n: Parameter(n.split(".")[0], "weight", 9, draw.choice([0, None, 0])) for n in names},
        activations={"network.act": Activation("relu", 4)},
        penalties={"train/l2_penalty": Setting("{}")},
        weight_decay={"network": Setting("{}", 0.0)},
        losses={} if draw.random() < 0.5 else {"adversarial": Setting("{}"), "reconstruction": Setting("{}", 1.0)},
        discriminators=frozenset({"discriminator"} if draw.random() < 0.5 else ()),
        higher_is_better={"psnr": True},
        color=draw.random() < 0.5,
    )
    for length in (0, 1, 2, 7, 40, 400):
        history = History(model)
        series = [(None, name) for name in SCALARS.split()]
        series += [(t, n) for t in TABLES.split() for n in (*names, "network.act", "network", "discriminator")]
        for table, name in series:
            values = [draw.choice(EXTREMES)] if draw.random() < 0.5 else draw.choices(EXTREMES, k=draw.randint(1, 6))
            if draw.random() < 0.2:
                values = [value for value in values if math.isfinite(value)] or [0.0]
            for step in range(length if draw.random() < 0.8 else draw.randint(0, length)):
                history.add(name, step, draw.choice(values), table)
        for rule in training_rules():
            rule.evaluate(history)
