"""Units, gradients, weights and the course of the loss: each fault as it would be measured."""

from __future__ import annotations

import math
import random

from workbench.findings import Knob

STUCK = {"loss": lambda s: 0.2 if s > 20 else 0.4, "error": lambda s: 0.06}
"""A run that has learned the mean of the targets, and nothing else."""


def test_a_layer_that_is_dead_altogether(story):
    run = story(tables={"dead": lambda s, n: 1.0 if "body.1" in n else 0.1})
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["dead-units"]
    assert found[0].where == "network.body.1.act" and found[0].value == 1.0


def test_two_thirds_dead_and_nothing_learned(story):
    assert story(tables={"dead": lambda s, n: 0.66}, **STUCK).faults() == ["dead-units"]


def test_saturated_and_nothing_learned(story):
    assert story(tables={"saturated": lambda s, n: 0.9}, **STUCK).faults() == ["saturated-units"]


def test_saturated_and_all_is_well(story):
    found = story(tables={"saturated": lambda s, n: 0.9}).tell()
    assert [(f.code, f.severity) for f in found] == [("saturated-units", "note")]


def test_the_error_fades_on_its_way_back(story):
    sizes = {"head": 1e-9, "body.0": 1e-7, "body.1": 1e-5, "body.2": 1e-3, "tail": 0.1}
    run = story(gradient=lambda s, n: sizes[n[len("network.") :].rpartition(".")[0]], **STUCK)
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["vanishing-gradients"]
    assert found[0].where == "network.head.weight"


def test_gradients_of_zero_at_the_end_of_a_fading_have_vanished(story):
    sizes = {"head": 0.0, "body.0": 0.0, "body.1": 1e-12, "body.2": 1e-6, "tail": 0.1}
    run = story(gradient=lambda s, n: sizes[n[len("network.") :].rpartition(".")[0]], **STUCK)
    assert run.faults() == ["vanishing-gradients"]


def test_gradients_that_outgrow_themselves(story):
    run = story(gradient=lambda s, n: 0.05 if s < 150 else 5.0, **STUCK)
    assert run.faults() == ["exploding-gradients"]


def test_gradients_that_grow_from_layer_to_layer(story):
    sizes = {"head": 1e4, "body.0": 1e3, "body.1": 1e2, "body.2": 10.0, "tail": 1.0}
    run = story(gradient=lambda s, n: sizes[n[len("network.") :].rpartition(".")[0]], **STUCK)
    assert run.faults() == ["exploding-gradients"]


def test_outputs_far_off_before_the_first_step(story):
    """Then no rate is to blame, however large the steps are that follow."""
    run = story(
        error=lambda s: 1e4 if s == 0 else 50.0, loss=lambda s: 100.0, ratio=lambda s, n: 5.0, gradient=lambda s, n: 1e3
    )
    assert run.faults() == ["exploding-gradients"]


def test_a_loss_that_is_no_number(story):
    run = story(
        loss=lambda s: 0.05 if s < 123 else math.nan,
        ratio=lambda s, n: 5e-3 if s < 123 else math.nan,
        gradient=lambda s, n: 0.05 if s < 123 else math.nan,
        error=lambda s: 0.005 if s < 123 else math.nan,
        tables={"dead": lambda s, n: 0.6},
    )
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["nonfinite-loss"]
    assert found[0].step == 123


def test_weights_of_another_size(story):
    run = story(scale=lambda s, n: (5.0 if "body.0" in n else 0.05) if n.endswith("weight") else 0.0, **STUCK)
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["weights-abnormal"]
    assert found[0].where == "network.body.0.weight"


def test_weights_that_keep_doubling(story):
    run = story(scale=lambda s, n: 0.05 * 2 ** (s / 60) if n.endswith("weight") else 0.0, **STUCK)
    assert run.faults() == ["weights-abnormal"]


def test_means_far_beside_the_middle(story):
    tables = {"off_center": lambda s, n: 1.0, "offset": lambda s, n: 20.0}
    assert story(tables=tables, **STUCK).faults() == ["activations-off-centre"]


def test_a_penalty_above_the_loss(story):
    logged = {"train/loss": lambda s: 0.08, "train/l2_penalty": lambda s: 0.8}
    run = story(logged=logged, error=lambda s: 0.0096, loss=lambda s: 0.88)
    run.facts.penalties["train/l2_penalty"] = Knob("model.init_args.l2", 0.01)
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["regularization-dominates"]
    assert "--model.init_args.l2 0.0001" in found[0].advice


def test_weight_decay_above_the_gradient(story):
    run = story(logged={"decay/network": lambda s: 20.0}, error=lambda s: 0.0096, loss=lambda s: 0.08)
    run.facts.weight_decay["network"] = Knob("model.init_args.optimizer.init_args.weight_decay", 1.0)
    assert run.faults() == ["regularization-dominates"]


def test_a_loss_that_leaves_its_level(story):
    run = story(loss=lambda s: (0.03 if s < 200 else 0.09) * (1 + 0.1 * random.Random(s).gauss(0, 1)) if s > 5 else 0.1)
    assert run.faults() == ["loss-surge"]


def test_a_loss_that_stays_at_the_mean_answer(story):
    assert story(**STUCK).faults() == ["loss-flat"]


def test_a_network_that_gives_back_its_input(story):
    assert story(loss=lambda s: 0.08, error=lambda s: 0.0096).faults() == ["loss-flat"]


def test_a_loss_that_swings(story):
    run = story(loss=lambda s: 0.1 if (s // 10) % 2 else 0.4, error=lambda s: 0.03)
    assert run.faults() == ["loss-oscillates"]


def test_a_validation_loss_that_rises_while_training_falls(story):
    run = story(
        steps=600,
        loss=lambda s: 0.08 * math.exp(-s / 150),
        scores={"val/loss": lambda s: 0.05 if s < 200 else 0.05 + 0.0001 * (s - 200)},
    )
    assert run.faults() == ["overfitting"]


def test_a_metric_that_falls_with_the_loss(story):
    run = story(
        scores={"val/loss": lambda s: 0.05 * math.exp(-s / 300), "val/psnr": lambda s: 25 - s / 100},
    )
    run.facts.higher_is_better["psnr"] = True
    assert run.faults() == ["metric-disagrees"]
