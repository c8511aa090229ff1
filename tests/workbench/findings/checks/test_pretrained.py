"""What pretrained weights are given: their own normalization, and nothing before it."""

from __future__ import annotations

import pytest
import torch

from project.networks import BackboneUNet, Normalized
from workbench.findings.checks import Passed, Skipped


def backbone(**more) -> BackboneUNet:
    torch.manual_seed(0)
    return BackboneUNet(
        **{
            "backbone": "mobilenet_v3_small",
            "weights": "none",
            "stages": 2,
            "widths": [6, 8, 8],
            "residual": True,
            **more,
        }
    )


def test_pictures_in_the_usual_range_pass(look, kit):
    found = {outcome.code: outcome for outcome in look(backbone())}
    assert isinstance(found["pretrained-range"], Passed)
    assert isinstance(found["input-not-centred"], Skipped)


def test_a_network_without_such_weights_is_left_alone(look, kit):
    found = {outcome.code: outcome for outcome in look(kit.small_unet())}
    assert isinstance(found["pretrained-range"], Skipped)


def test_a_normalisation_too_many_is_named(look, kit):
    found = look(Normalized(backbone()))
    assert "pretrained-range" in kit.faults(found)
    assert "input-not-centred" not in kit.faults(found)


@pytest.mark.parametrize("change", [lambda x: 1 - 0.1 * x, lambda x: 0.05 * x], ids=["paper", "night"])
def test_pictures_unlike_photographs_are_worth_a_note(look, kit, change):
    found = look(backbone(), pairs=kit.Spoilt(lambda x, y: (change(x), change(y)), 0.0))
    assert "pretrained-range" in kit.notes(found)


def test_a_range_that_does_nothing_is_worth_a_note(look, kit):
    assert "pretrained-range" in kit.notes(look(backbone(), input_range="minus_one_one"))
