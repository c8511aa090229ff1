from __future__ import annotations

import math
import random

import pytest


@pytest.mark.parametrize("ratio", [40.0, 3.0])
def test_a_rate_that_throws_the_weights_about(story, ratio):
    run = story(ratio=lambda s, n: ratio, loss=lambda s: 0.08 + 5 * min(s, 20), error=lambda s: 1e3 * s + 0.0096)
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["learning-rate-high"]
    assert found[0].step <= 20
    assert "--model.init_args.optimizer.init_args.lr 0.0002" in found[0].advice


def test_no_number_after_wild_steps_is_the_rates_doing(story):
    """Over within four steps."""
    run = story(
        ratio=lambda s, n: 10.0 ** (s - 1) if s < 4 else math.nan,
        loss=lambda s: 0.08 * 100.0**s if s < 4 else math.nan,
        gradient=lambda s, n: 0.05 * 100.0**s if s < 4 else math.nan,
        error=lambda s: math.nan if s > 3 else 0.0096,
    )
    assert run.faults() == ["learning-rate-high"]


def test_steps_a_third_of_the_weights_and_a_loss_that_stays(story):
    run = story(
        ratio=lambda s, n: 0.3,
        loss=lambda s: 0.15 * (1 + 0.3 * random.Random(s).gauss(0, 1)) if s else 0.08,
        error=lambda s: 0.05,
    )
    assert run.faults() == ["learning-rate-high"]


def test_the_same_steps_while_it_learns_are_worth_a_note(story):
    found = story(ratio=lambda s, n: 0.3).tell()
    assert [(f.code, f.severity) for f in found] == [("learning-rate-high", "note")]


def test_a_rate_that_jumps_within_the_run(story):
    run = story(
        lr=lambda s: 2e-3 if s < 203 else 2.0,
        loss=lambda s: 0.04 if s < 204 else math.nan,
        ratio=lambda s, n: 5e-3 if s < 203 else math.nan,
        gradient=lambda s, n: 0.05 if s < 203 else math.nan,
    )
    assert run.faults() == ["learning-rate-high"]


def test_a_loss_that_climbs_steadily(story):
    run = story(loss=lambda s: 0.08 * 1.01**s, error=lambda s: 0.0096 * 1.01**s)
    assert run.faults()[0] == "learning-rate-high"


@pytest.mark.parametrize("ratio", [3e-8, 0.0, 2e-5])
def test_a_rate_that_moves_nothing(story, ratio):
    run = story(
        lr=lambda s: 2e-9,
        ratio=lambda s, n: ratio,
        moved=lambda s, n: math.nan,
        loss=lambda s: 0.08 * (1 + 0.05 * random.Random(s).gauss(0, 1)),
        error=lambda s: 0.0096,
    )
    assert run.faults() == ["learning-rate-low"]


def test_layers_that_stay_while_others_move_are_not_the_rates_doing(story):
    run = story(
        ratio=lambda s, n: 5e-3 if "tail" in n else 1e-7,
        gradient=lambda s, n: 0.05 if "tail" in n else 1e-7,
        loss=lambda s: 0.08,
        error=lambda s: 0.0096,
    )
    assert run.faults()[0] == "vanishing-gradients"
