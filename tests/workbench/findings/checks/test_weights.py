"""Weights that start wrongly, and tensors that nobody trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from project.data.pairs import LinesToColor, SpatialHints
from project.networks import PatchGAN, UNet


def _layer(network: UNet) -> nn.Conv2d:
    return network.encoder[0][0].body[0]


@pytest.mark.planted("weights-constant")
@pytest.mark.parametrize(
    "start",
    {
        "constant": lambda w: nn.init.constant_(w, 0.02),
        "zero": nn.init.zeros_,
        "same-units": lambda w: w.data.copy_(w.data[:1].expand_as(w)),
        "ones": nn.init.ones_,
    }.items(),
    ids=lambda entry: entry[0],
)
def test_weights_that_are_all_the_same(look, kit, start):
    network = kit.small_unet()
    start[1](_layer(network).weight)
    found = look(network)
    assert kit.faults(found)[0] == "weights-constant"
    assert "network.encoder.0.0.body.0" in next(one for one in found if one.code == "weights-constant").where


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        nn.init.zeros_(self.body[2].weight)
        nn.init.zeros_(self.body[2].bias)

    def forward(self, x):
        return x + self.body(x)


@pytest.mark.healthy
def test_layers_that_may_start_at_zero(look, kit):
    network = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1), Block(), Block(), nn.Conv2d(8, 3, 3, padding=1)
    )
    nn.init.zeros_(network[4].weight)
    assert kit.faults(look(network)) == []
    unet = kit.small_unet()
    nn.init.zeros_(unet.tail.weight)
    assert kit.faults(look(unet)) == []


@pytest.mark.planted("weights-scale")
@pytest.mark.parametrize("factor", [30.0, 0.01])
@pytest.mark.parametrize("layer", ["encoder.0.0.body.0", "up.0", "down.0"])
def test_weights_of_another_scale(look, kit, factor, layer):
    network = kit.small_unet()
    with torch.no_grad():
        network.get_submodule(layer).weight.mul_(factor)
    found = look(network)
    assert kit.faults(found)[0] == "weights-scale"
    assert layer in next(one for one in found if one.code == "weights-scale").where


@pytest.mark.planted("frozen-parameters")
def test_a_part_that_is_frozen_without_a_word(look, kit):
    network = kit.small_unet()
    network.middle.requires_grad_(False)
    assert kit.faults(look(network))[0] == "frozen-parameters"


@pytest.mark.planted("frozen-parameters")
def test_all_but_the_tail_that_is_frozen_without_a_word(look, kit):
    whole = kit.small_unet()
    for name, parameter in whole.named_parameters():
        parameter.requires_grad_("tail" in name)
    assert kit.faults(look(whole))[0] == "frozen-parameters"


@pytest.mark.healthy
def test_a_freeze_that_is_declared(look, kit):
    network = kit.small_unet()
    network.encoder.requires_grad_(False)
    network.freeze_encoder = True
    assert kit.faults(look(network)) == []


class Listed(nn.Module):
    """Some of its layers are where torch does not find them."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head, self.tail = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        middle = nn.Conv2d(8, 8, 3, padding=1)
        self.middle = {"list": [middle], "dict": {"one": middle}, "tensor": None}[kept]
        self.gain = torch.ones(1, 8, 1, 1, requires_grad=True) if kept == "tensor" else 1.0

    def forward(self, x):
        h = self.head(self.norm(x)).relu()
        middle = self.middle[0] if isinstance(self.middle, list) else self.middle and self.middle["one"]
        h = (middle(h) if middle else h).relu() * self.gain
        return x + self.tail(h)


@pytest.mark.planted("parameters-not-optimized")
@pytest.mark.parametrize("kept", ["list", "dict", "tensor"])
def test_layers_that_torch_does_not_find(look, kit, kept):
    assert kit.faults(look(Listed(kept)))[0] == "parameters-not-optimized"


@pytest.mark.planted("parameters-not-optimized")
def test_an_optimiser_without_some_of_the_parameters(look, kit):
    model = kit.restorer()
    model.configure_optimizers = lambda: torch.optim.Adam(model.network.encoder.parameters(), lr=1e-3)
    found = look(model=model)
    assert kit.faults(found) == ["parameters-not-optimized"]
    assert "network.head" in next(one for one in found if one.code == "parameters-not-optimized").where


LINES = {"pairs": LinesToColor(hints=SpatialHints())}


@pytest.mark.planted("parameters-not-optimized")
def test_a_discriminator_that_nobody_trains(look, kit):
    model = kit.colorizer()
    both = model.configure_optimizers
    model.configure_optimizers = lambda: both()[:1]
    found = look(model=model, **LINES)
    assert kit.faults(found) == ["parameters-not-optimized"]


@pytest.mark.planted("weights-constant")
def test_a_discriminator_that_starts_constant(look, kit):
    critic = PatchGAN(in_channels=8, width=8, layers=2)
    nn.init.constant_(critic.blocks[1][0].weight, 0.02)
    found = look(model=kit.colorizer(discriminator=critic), **LINES)
    assert kit.faults(found)[0] == "weights-constant"


@pytest.mark.planted("frozen-parameters")
def test_a_discriminator_that_is_frozen(look, kit):
    critic = PatchGAN(in_channels=8, width=8, layers=2)
    critic.blocks[0].requires_grad_(False)
    assert kit.faults(look(model=kit.colorizer(discriminator=critic), **LINES))[0] == "frozen-parameters"
