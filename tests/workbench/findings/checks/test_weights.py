"""Weights that start wrongly, and tensors that nobody trains."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from project.models import ImageRestorer
from project.models.finetune import FineTuning

STARTS = {
    "constant": lambda w: nn.init.constant_(w, 0.02),
    "zero": nn.init.zeros_,
    "same-units": lambda w: w.data.copy_(w.data[:1].expand_as(w)),
    "ones": nn.init.ones_,
}


@pytest.mark.planted("weights-constant")
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_weights_that_are_all_the_same(look, kit, start):
    network = kit.small_unet()
    start(network.get_submodule("encoder.0.0.body.0").weight)
    found = look(network)
    assert kit.faults(found)[0] == "weights-constant"
    assert "network.encoder.0.0.body.0" in kit.only(found, "weights-constant").where


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        nn.init.zeros_(self.body[2].weight)
        nn.init.zeros_(self.body[2].bias)

    def forward(self, x):
        return x + self.body(x)


@pytest.mark.healthy
def test_layers_that_may_start_at_zero(faults_of, kit):
    first, last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
    unet = kit.small_unet()
    nn.init.zeros_(last.weight), nn.init.zeros_(unet.tail.weight)
    assert faults_of(nn.Sequential(nn.BatchNorm2d(3), first, Block(), Block(), last)) == []
    assert faults_of(unet) == []


@pytest.mark.planted("weights-scale")
@pytest.mark.parametrize("factor", [30.0, 0.01])
@pytest.mark.parametrize("layer", ["encoder.0.0.body.0", "up.0", "down.0"])
def test_weights_of_another_scale(look, kit, factor, layer):
    network = kit.small_unet()
    with torch.no_grad():
        network.get_submodule(layer).weight.mul_(factor)
    found = look(network)
    assert kit.faults(found)[0] == "weights-scale"
    assert layer in kit.only(found, "weights-scale").where


@pytest.mark.planted("frozen-parameters")
@pytest.mark.parametrize("part", ["middle", "all but the tail"])
def test_a_part_that_is_frozen_undeclared(faults_of, kit, part):
    network = kit.small_unet()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("tail" in name if part != "middle" else "middle" not in name)
    assert faults_of(network)[0] == "frozen-parameters"


@pytest.mark.parametrize("how", ["attribute", "list"])
def test_a_freeze_that_is_declared(faults_of, kit, how):
    network = kit.small_unet()
    network.encoder.requires_grad_(False)
    setattr(network, *{"attribute": ("freeze_encoder", True), "list": ("declared_frozen", ["enc", "encoder"])}[how])
    assert faults_of(Trained(network)) == []
    network.down.requires_grad_(False)  # a list declares no more than what it names
    assert faults_of(Trained(network)) == ([] if how == "attribute" else ["frozen-parameters"])


class Trained(ImageRestorer):
    """Without ``init_from``: nothing says that its weights are untrained."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, optimizer=partial(torch.optim.Adam, lr=2e-3))
        self.hparams.pop("init_from")


@pytest.mark.parametrize("init_from", [None, "weights.ckpt"])
def test_fine_tuning_declares_what_it_freezes(faults_of, kit, init_from):
    start = kit.small_unet()
    torch.save({f"network.{name}": value for name, value in start.named_parameters()}, "weights.ckpt")
    model = kit.restorer(start, finetune=FineTuning(freeze_stages=1), init_from=init_from)
    assert model.declared_frozen == ["network.head", "network.encoder.0", "network.down.0", "network.middle"]
    assert faults_of(model) == ([] if init_from else ["frozen-parameters"])


class Listed(nn.Module):
    """Some of its layers are where torch does not find them, or are made by the first pass."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head, self.tail = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        middle = nn.Conv2d(8, 8, 3, padding=1)
        self.middle = {"list": [middle], "dict": {"one": middle}}.get(kept)
        self.gain = torch.ones(1, 8, 1, 1, requires_grad=True) if kept == "tensor" else 1.0
        self.kept = kept

    def forward(self, x):
        if self.kept == "late" and not isinstance(self.middle, nn.Module):
            del self.middle
            self.middle = nn.Conv2d(8, 8, 3, padding=1)
        h = self.head(self.norm(x)).relu()
        middle = self.middle["one"] if self.kept == "dict" else self.middle[0] if self.kept == "list" else self.middle
        h = (middle(h) if middle else h).relu() * self.gain
        return x + self.tail(h)


@pytest.mark.planted("parameters-not-optimized")
@pytest.mark.parametrize("kept", ["list", "dict", "tensor", "late"])
def test_layers_that_the_optimizer_cannot_find(faults_of, kept):
    assert faults_of(Listed(kept))[0] == "parameters-not-optimized"


@pytest.mark.planted("parameters-not-optimized")
@pytest.mark.parametrize("kind", ["restorer", "gan"])
def test_an_optimizer_without_some_of_the_parameters(look, kit, kind):
    model = kit.restorer() if kind == "restorer" else kit.colorizer()
    configure = model.configure_optimizers
    encoder = model.network.encoder if kind == "restorer" else None
    model.configure_optimizers = lambda: torch.optim.Adam(encoder.parameters()) if encoder else configure()[:1]
    found = look(model)
    assert kit.faults(found) == ["parameters-not-optimized"]
    assert ("network.head" if encoder else "discriminator") in kit.only(found, "parameters-not-optimized").where


@pytest.mark.planted
@pytest.mark.parametrize("code", ["weights-constant", "frozen-parameters"])
def test_a_discriminator_that_starts_constant_or_frozen(faults_of, kit, code):
    critic = kit.critic()
    if code == "weights-constant":
        nn.init.constant_(critic.blocks[1][0].weight, 0.02)
    else:
        critic.blocks[0].requires_grad_(False)
    assert faults_of(kit.colorizer(discriminator=critic))[0] == code
