from __future__ import annotations

import math
from dataclasses import replace

import pytest

WORSE = {"train/reconstruction": lambda s: 0.09}
"""The images have not become better."""


def test_a_discriminator_that_is_never_wrong(game):
    run = game(
        {
            **WORSE,
            "train/discriminator": lambda s: 1.38 * math.exp(-s / 10),
            "train/adversarial": lambda s: 0.7 + s / 20,
            "train/score_real": lambda s: 8.0,
            "train/score_fake": lambda s: -8.0,
        }
    )
    assert run.faults() == ["discriminator-too-strong"]


def test_a_discriminator_that_never_tells_them_apart(game):
    run = game(
        {
            "train/discriminator": lambda s: 1.386,
            "train/adversarial": lambda s: 0.693,
            "train/score_real": lambda s: 0.001,
            "train/score_fake": lambda s: 0.0,
        }
    )
    assert run.faults() == ["discriminator-inert"]


def test_a_discriminator_whose_weights_do_not_move_and_that_tells_apart_a_little_by_chance(game):
    resting = {
        "train/discriminator": lambda s: 1.33,
        "train/adversarial": lambda s: 0.7,
        "train/score_real": lambda s: 0.2,
        "train/score_fake": lambda s: 0.05,
    }
    run = game(resting, ratio=lambda s, n: 1e-7 if n.startswith("discriminator") else 5e-3)
    assert run.faults() == ["discriminator-inert"]
    assert game(resting).faults() == []


def test_a_discriminator_that_knows_its_pictures_by_heart(game):
    run = game(WORSE, scores={"game/sign_train": lambda s: 0.9, "game/sign_val": lambda s: -0.3})
    assert run.faults() == ["discriminator-overfits"]


def test_the_same_answer_to_everything(game):
    run = game(scores={"game/diversity": lambda s: 0.02, "game/color_strength": lambda s: 0.8})
    assert run.faults() == ["mode-collapse"]


@pytest.mark.parametrize(("ratio", "key"), [(500.0, "adversarial_weight"), (1e-4, "reconstruction_weight")])
def test_one_loss_that_drowns_the_other(game, ratio, key):
    run = game(scores={"game/gradient_ratio": lambda s: ratio})
    found = [f for f in run.tell() if f.is_fault]
    assert [f.code for f in found] == ["adversarial-imbalance"]
    assert f"--model.init_args.{key}" in found[0].advice


def test_a_loss_that_is_switched_off_on_purpose_is_no_imbalance(game):
    run = game(scores={"game/gradient_ratio": lambda s: 1e9})
    run.facts.losses["reconstruction"] = replace(run.facts.losses["reconstruction"], value=0.0)
    assert run.faults() == []
