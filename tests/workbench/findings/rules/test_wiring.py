from __future__ import annotations

import math

import pytest

from workbench.findings import Parameter


def test_gradients_that_are_carried_along(story):
    run = story(carried=lambda s: 0.04 * (s + 1), gradient=lambda s, n: 0.05 * (s + 1), loss=lambda s: 0.08 + 0.01 * s)
    assert run.faults() == ["gradients-not-cleared"]


def test_a_single_look_at_uncleared_gradients_is_not_enough(story):
    assert story(carried=lambda s: 1.0 if s == 5 else 0.0).faults() == []


def test_a_tensor_without_a_gradient(story):
    found = story(gradient=lambda s, n: None if n == "network.body.1.weight" else 0.05).tell()
    assert [f.code for f in found if f.is_fault] == ["parameters-unchanged"]
    assert found[0].where.startswith("network.body.1.weight") and "gets no gradient" in found[0].value


def test_gradients_of_zero_everywhere(story):
    """And a loss that stays where it is, which follows from it."""
    run = story(
        gradient=lambda s, n: 0.0,
        moved=lambda s, n: 0.0,
        ratio=lambda s, n: 0.0,
        loss=lambda s: 0.08,
        error=lambda s: 0.0096,
    )
    assert run.faults() == ["parameters-unchanged"]


def test_gradients_that_have_come_to_nothing_after_wild_steps(story):
    """All units are dead by then; the rate has done that."""
    run = story(
        gradient=lambda s, n: 0.5 if s < 2 else 0.0,
        moved=lambda s, n: 1.0 if s < 2 else 0.0,
        ratio=lambda s, n: 4.0 if s < 2 else 0.0,
        loss=lambda s: 0.08 if s == 0 else 0.25,
        error=lambda s: 0.06,
    )
    assert run.faults() == ["learning-rate-high"]


def test_an_optimiser_that_does_not_step(story):
    run = story(moved=lambda s, n: 0.0, ratio=lambda s, n: 0.0, loss=lambda s: 0.08, error=lambda s: 0.0096)
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["parameters-unchanged"]
    assert "does not move" in found[0].value


def test_a_tensor_that_no_optimiser_holds(story):
    run = story()
    held = run.facts.parameters["network.body.2.weight"]
    run.facts.parameters["network.body.2.weight"] = Parameter(held.network, held.role, held.fan_in, optimizer=None)
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["parameters-unchanged"]
    assert "no optimizer holds it" in found[0].value


def test_a_rate_of_zero_is_declared(story):
    run = story(steps=100, lr=lambda s: 0.0, moved=lambda s, n: 0.0, ratio=lambda s, n: 0.0)
    run.facts.parameters = dict(run.facts.parameters)
    # UpdateRatio does not look whether anything moves where nothing is to move.
    run.moved = lambda s, n: math.nan
    assert "parameters-unchanged" not in run.faults()


def test_dead_units_explain_gradients_of_zero(story):
    run = story(
        gradient=lambda s, n: 0.0 if "body" in n else 0.05,
        tables={"dead": lambda s, n: 1.0},
        loss=lambda s: 0.08,
        error=lambda s: 0.0096,
    )
    assert run.faults() == ["dead-units"]


@pytest.mark.parametrize("win", [0.1, 0.4])
def test_labels_the_wrong_way_round(game, win):
    run = game(
        {
            "train/discriminator": lambda s: 1.38 * (win + (1 - win) * math.exp(-s / 10)),
            "train/adversarial": lambda s: 0.69 * math.exp(-s / 10),
            "train/score_real": lambda s: -2 * (1 - math.exp(-s / 10)),
            "train/score_fake": lambda s: 2 * (1 - math.exp(-s / 10)),
        }
    )
    assert run.faults()[0] == "labels-swapped"


def test_labels_swapped_together_with_what_is_logged(game):
    """The scores look right; but that both sides are content cannot be."""
    run = game(
        {
            "train/discriminator": lambda s: 1.38 * math.exp(-s / 10),
            "train/adversarial": lambda s: 0.69 * math.exp(-s / 10),
            "train/score_real": lambda s: 2.0,
            "train/score_fake": lambda s: -2.0,
        }
    )
    assert run.faults()[0] == "labels-swapped"


def test_a_generator_that_fools_the_discriminator_for_a_while(game):
    """Made images score higher, and the discriminator is punished for it: its loss is high."""
    run = game(
        {
            "train/discriminator": lambda s: 1.6,
            "train/adversarial": lambda s: 0.4,
            "train/score_real": lambda s: -0.2,
            "train/score_fake": lambda s: 0.3 if s > 10 else -0.3,
        }
    )
    assert run.faults() == []


def test_a_leak_into_the_generator(game):
    run = game()
    history_of = run._measure

    def measure(history, step):
        history_of(history, step)
        history.add_row("leaked", "generator", step, 0.02)

    run._measure = measure
    assert run.faults()[0] == "discriminator-leaks"
