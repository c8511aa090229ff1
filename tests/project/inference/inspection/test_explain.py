"""Explanations that sum to what they explain; parts of an image that go through a network as in the whole."""

import importlib.util

import pytest
import torch
from torch import nn

from project.inference.inspection.explain import check_captum, explain
from project.inference.inspection.layers import UpTo
from project.inference.inspection.norms import norms_of
from project.networks import UNet
from workbench.errors import UserError


def test_of_a_linear_layer_each_pixel_gets_its_own_part():
    torch.manual_seed(1)
    layer = nn.Conv2d(3, 4, 3, padding=1)
    x, baseline = torch.rand(1, 3, 7, 9), torch.rand(1, 3, 1, 1).expand(1, 3, 7, 9)
    found = explain(layer, x, baseline, (2, 4, 5))
    expected = torch.zeros(7, 9)
    expected[3:6, 4:7] = (layer.weight[2] * (x - baseline)[0, :, 3:6, 4:7]).sum(dim=0)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_the_parts_sum_to_the_activation_less_that_of_the_baseline(norm):
    torch.manual_seed(2)
    network = UNet(widths=[8, 12], stem=2, norm=norm, activation="silu").eval().requires_grad_(False)
    features = UpTo(network, "middle")
    x, baseline = torch.rand(1, 3, 24, 32), torch.full((1, 3, 24, 32), 0.5)
    for unit in [(0, 1, 2), (7, 3, 7), (11, 0, 0)]:
        change = float(features(x)[(0, *unit)] - features(baseline)[(0, *unit)])
        assert float(explain(features, x, baseline, unit).sum()) == pytest.approx(change, abs=0.02 + 0.05 * abs(change))


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_with_norms_held_still_a_part_answers_as_in_the_whole(norm):
    torch.manual_seed(0)
    network = UNet(widths=[4, 6], stem=2, norm=norm, norm_groups=2).eval()
    for part in network.modules():
        if isinstance(part, nn.GroupNorm | nn.InstanceNorm2d):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    features = UpTo(network, "middle")  # sees 32 x 32 pixels, 4 pixels from one to the next
    x = torch.rand(1, 3, 80, 96)
    x[..., 60:, :] *= 0.1
    part = x[..., 16:64, 24:72]
    with torch.no_grad():
        whole, alone = features(x), features(part)
        with norms_of(features, x):
            kept = features(part)
            torch.testing.assert_close(features(x), whole, atol=1e-4, rtol=1e-4)
        assert torch.equal(features(part), alone), "released afterwards"
    inner = (slice(None), slice(None), slice(5, 7), slice(5, 7))
    torch.testing.assert_close(kept[inner], whole[..., 9:11, 11:13], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(alone[inner], whole[..., 9:11, 11:13], atol=1e-2)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    check_captum()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"\[inspect\]"):
        check_captum()
