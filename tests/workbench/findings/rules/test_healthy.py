"""What looks odd and is not: no rule may call any of this a fault."""

from __future__ import annotations

import math
import random

import pytest

from workbench.findings import Activation, Facts, Parameter


def _noise(step: int, share: float) -> float:
    return 1 + share * random.Random(step).gauss(0, 1)


def _pre_trained(facts: Facts) -> Facts:
    facts.pretrained = True
    return facts


def test_a_denoiser_that_learns(story):
    assert story().faults() == []
    assert story(steps=1500).faults() == []


def test_one_that_has_long_arrived_at_its_floor(story):
    """The loss is flat, the rate has fallen to nothing, and all is well: the image is better than before."""
    run = story(
        steps=1200,
        loss=lambda s: 0.03 * _noise(s, 0.2) if s > 100 else 0.08 - 0.0005 * s,
        lr=lambda s: 1e-3 * (1 + math.cos(math.pi * s / 1200)) / 2,
        ratio=lambda s, n: 5e-3 * (1 + math.cos(math.pi * s / 1200)) / 2 + 1e-9,
        error=lambda s: 0.003 if s > 50 else 0.009,
        scores={"val/loss": lambda s: 0.031 * _noise(s, 0.02), "val/psnr": lambda s: 29 * _noise(s, 0.002)},
    )
    assert run.faults() == []


@pytest.mark.parametrize("noise", [0.3, 0.6])
def test_batches_that_differ_much(story, noise):
    """Noise of any strength in each batch, and few images in it: single losses differ severalfold."""
    run = story(
        steps=800, loss=lambda s: (0.03 + 0.05 * math.exp(-s / 60)) * math.exp(noise * random.Random(s).gauss(0, 1))
    )
    assert run.faults() == []


def test_a_slow_start(story):
    """A rate ten times smaller than need be: for long not better than doing nothing, but on its way."""
    run = story(
        steps=600,
        loss=lambda s: (0.05 + 0.15 * math.exp(-s / 250)) * _noise(s, 0.1),
        ratio=lambda s, n: 5e-4,
        error=lambda s: 0.006 + 0.05 * math.exp(-s / 250),
    )
    assert run.faults() == []


def test_a_long_warm_up(story):
    run = story(
        steps=300,
        loss=lambda s: (0.08 if s < 150 else 0.03 + 0.05 * math.exp(-(s - 150) / 40)) * _noise(s, 0.1),
        lr=lambda s: 2e-3 * min(1, (s + 1) / 250),
        ratio=lambda s, n: 5e-3 * min(1, (s + 1) / 250) * 0.01 if s < 150 else 5e-3,
        error=lambda s: 0.0096 if s < 170 else 0.005,
    )
    assert run.faults() == []


def test_a_loss_below_zero(story):
    """PSNR as a loss: minus decibels."""
    run = story(loss=lambda s: -20 - 9 * (1 - math.exp(-s / 60)) + random.Random(s).gauss(0, 0.7))
    assert run.faults() == []


def test_dead_channels_here_and_there(story):
    """A third of a layer is dead from the start, and more than half of another, while the images get better."""
    shares = {"network.body.0.act": 0.33, "network.body.1.act": 0.6, "network.body.2.act": 0.0}
    assert story(tables={"dead": lambda s, n: shares[n]}).faults() == []


def test_means_beside_the_middle_without_a_norm(story):
    run = story(tables={"off_center": lambda s, n: 0.8, "offset": lambda s, n: 2.0}, error=lambda s: 0.0096)
    assert "activations-off-centre" not in run.faults()


def test_a_frozen_encoder_and_a_layer_that_starts_at_zero(story):
    """What is frozen is no trainable tensor; a tail of zeros blocks gradients in the first step only."""
    run = story(
        gradient=lambda s, n: 0.0 if s == 0 and "tail" not in n else 0.05,
        ratio=lambda s, n: float("nan") if s == 0 and "tail.weight" in n else 5e-3,
        scale=lambda s, n: 1e-5 * 1.5 ** min(s, 20) if "tail" in n else 0.05,
    )
    run.facts.activations["backbone.act"] = Activation("relu", 64, trained=False)
    run.tables["dead"] = lambda s, n: 1.0 if n == "backbone.act" else 0.0
    assert run.faults() == []


def test_a_helper_that_nobody_trains(story):
    run = story()
    run.facts.parameters["perceptual.vgg.0.weight"] = Parameter("perceptual", "weight", 27, None, helper=True)
    assert run.faults() == []


def test_skipped_steps_of_a_gradient_scaler(story):
    """While the scale is too large, gradients are infinite and nothing moves."""
    run = story(
        gradient=lambda s, n: math.inf if s < 8 else 0.05,
        moved=lambda s, n: 0.0 if s < 8 else 1.0,
        ratio=lambda s, n: 0.0 if s < 8 else 5e-3,
    )
    assert run.faults() == []


def test_one_bad_batch(story):
    """A spike of the gradient, and of the loss for a few steps, that is over soon."""
    run = story(
        loss=lambda s: 0.3 if 200 <= s < 205 else (0.03 + 0.05 * math.exp(-s / 60)) * _noise(s, 0.1),
        gradient=lambda s, n: 5.0 if 200 <= s < 205 else 0.05,
    )
    assert run.faults() == []


def test_first_steps_of_adam_without_warm_up(story):
    """Its first steps are as large as its rate, whatever the gradients; and the loss jumps a little."""
    run = story(
        lr=lambda s: 5e-3,
        ratio=lambda s, n: 0.3 / (1 + s) + 0.02,
        loss=lambda s: (0.12 if s < 8 else 0.03 + 0.05 * math.exp(-s / 60)) * _noise(s, 0.1),
    )
    assert run.faults() == []


def test_an_unknown_task_whose_loss_falls(story):
    run = story(error=None, loss=lambda s: (1 + math.exp(-s / 100)) * _noise(s, 0.05))
    assert run.faults() == []


def test_fine_tuning_an_unknown_task(story):
    """It starts where it ends, with a small rate; nothing tells whether that is good."""
    run = story(error=None, loss=lambda s: 0.5 * _noise(s, 0.1), ratio=lambda s, n: 2e-5, steps=600)
    run.facts.pretrained = True
    assert run.faults() == []


def test_games_of_all_kinds(game):
    assert game(steps=600).faults() == []


def test_a_discriminator_that_wins_while_the_pictures_get_better(game):
    """Common with few images."""
    run = game(
        {
            "train/discriminator": lambda s: 1.38 * math.exp(-s / 40) + 0.01,
            "train/adversarial": lambda s: 0.7 + s / 100,
            "train/score_real": lambda s: s / 100,
            "train/score_fake": lambda s: -s / 100,
        },
        steps=500,
        scores={"game/sign_train": lambda s: 0.95, "game/sign_val": lambda s: 0.2},
    )
    assert run.faults() == []


def test_a_critic_without_bounds(game):
    """Wasserstein: both losses drift far from where they began, and mean nothing by themselves."""
    run = game(
        {
            "train/discriminator": lambda s: 10 * math.exp(-s / 5) - 3 * (1 - math.exp(-s / 30)),
            "train/adversarial": lambda s: 0.1 + s / 10,
            "train/score_real": lambda s: 3 - s / 10,
            "train/score_fake": lambda s: -s / 10,
        },
        loss=lambda s: 10 + s / 10,
    )
    assert run.faults() == []


def test_a_coloriser_that_has_not_begun_to_paint(game):
    run = game(scores={"game/diversity": lambda s: 0.03, "game/color_strength": lambda s: 0.05})
    assert run.faults() == []


def test_least_squares_in_balance(game):
    """Both losses of LSGAN fall together to an eighth where nobody knows who is who."""
    run = game(
        {
            "train/discriminator": lambda s: 0.13 + 0.4 * math.exp(-s / 10),
            "train/adversarial": lambda s: 0.13 + 0.4 * math.exp(-s / 10),
            "train/score_real": lambda s: 0.55,
            "train/score_fake": lambda s: 0.45 if s > 20 else 0.1,
        }
    )
    assert run.faults() == []


def test_the_discriminator_rests_while_the_generator_trains_alone(game):
    run = game(gradient=lambda s, n: 0.05)
    for name in ("train/discriminator", "train/adversarial", "train/score_real", "train/score_fake"):
        del run.logged[name]
    run.facts.parameters = {n: p for n, p in run.facts.parameters.items() if p.network == "generator"}
    assert run.faults() == []
