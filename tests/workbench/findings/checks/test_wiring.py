"""Networks that are put together wrongly, and the networks of the project, which are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from project.networks import UNet
from project.networks.normalize import Normalize, Normalized


class Wired(nn.Module):
    """Normalization, three convolutions, and a residual; each step may be replaced by another."""

    def __init__(self, **steps) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False, momentum=0.5)
        self.one, self.two, self.three = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 8), (8, 8), (8, 3)))
        usual = {"before": same, "within": F.relu, "after": F.relu, "last": same, "add": torch.add}
        self.steps = usual | steps

    def forward(self, x):
        h = self.one(self.steps["before"](self.norm(x)))
        h = self.steps["after"](self.two(self.steps["within"](h)))
        return self.steps["add"](x, self.steps["last"](self.three(h)))


def convolutions():
    return nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)


def alone(x, y):
    return y


def same(h):
    return h


WAYS = {
    "dropped": ("eval-not-deterministic", {"after": lambda h: F.dropout(h.relu(), 0.1)}),
    "noisy": ("eval-not-deterministic", {"last": lambda y: y + 0.01 * torch.randn_like(y)}),
    "overwritten": ("input-ignored", {"before": torch.ones_like, "add": alone}),
    "added alone": ("input-ignored", {"before": torch.zeros_like}),
    "first channel alone": ("input-ignored", {"before": lambda h: torch.cat([h[:, :1]] * 3, 1), "add": alone}),
    "batch mean": ("batch-mixing", {"within": lambda h: h.relu() - h.relu().mean(0)}),
    "reshaped": ("batch-mixing", {"before": lambda h: h.transpose(0, 1).reshape(h.shape)}),
    "batch statistics": ("batch-mixing", {"within": lambda h: F.batch_norm(h, None, None, training=True).relu()}),
    "two linear": ("missing-nonlinearity", {"within": same}),
    "all linear": ("missing-nonlinearity", {"within": same, "after": same}),
    "squashed": ("output-range", {"last": lambda y: y.tanh() * 0.3, "add": alone}),
    "cut": ("output-range", {"last": lambda y: y.clamp(0.3, 0.6), "add": alone}),
}


@pytest.mark.planted
@pytest.mark.parametrize(("code", "steps"), WAYS.values(), ids=WAYS)
def test_a_way_through_the_network_that_goes_wrong(faults_of, code, steps):
    assert faults_of(Wired(**steps))[0] == code


@pytest.mark.planted("batch-mixing")
def test_a_norm_that_stays_in_training_mode(faults_of, kit):
    network = kit.small_unet(norm="batch")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    assert faults_of(network)[0] == "batch-mixing"


@pytest.mark.planted("output-range")
@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.ReLU(), nn.Tanh()], ids=["sigmoid", "relu", "tanh"])
def test_a_last_activation_within_the_normalization(faults_of, last):
    assert faults_of(Normalized(nn.Sequential(*convolutions(), last)))[0] == "output-range"


@pytest.mark.healthy
def test_networks_wired_well(faults_of):
    covers_all_colors = nn.Sequential(Normalize(3, 0.45, 0.25), *convolutions(), nn.Sigmoid())
    assert faults_of(Wired()) == [] and faults_of(covers_all_colors) == []


@pytest.mark.planted("missing-nonlinearity")
def test_an_activation_that_is_missing_in_one_block(look, kit):
    network = kit.small_unet(norm="group")
    network.decoder[0][0].body[2] = nn.Identity()
    found = look(network)
    assert kit.faults(found)[0] == "missing-nonlinearity"
    assert "decoder.0" in kit.only(found, "missing-nonlinearity").where


OPTIONS = [
    *({"activation": name} for name in ("leaky_relu", "prelu", "silu", "gelu", "elu", "selu", "mish", "hardswish")),
    *({"activation": name, "norm": "batch"} for name in ("softplus", "tanh", "sigmoid")),
    *({"norm": name} for name in ("batch", "group", "layer", "instance", "none")),
    *({"down": name} for name in ("strided", "max", "average")),
    *({"up": name} for name in ("transposed", "bilinear", "pixel_shuffle")),
    *({"skip": name} for name in ("concat", "add", "none")),
    *({"init": name} for name in ("kaiming", "xavier", "orthogonal")),
    {"stage_residual": True, "last_activation": False, "convs": 3},
    {"stage_residual": False, "last_activation": False, "convs": 3},
    {"residual": False},
    {"residual": False, "stem": 2, "norm": "batch"},
    {"dropout": 0.2},
    {"widths": [6]},
    {"widths": [6, 8, 12, 16], "convs": 3, "kernel_size": 5},
]


@pytest.mark.healthy
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()))
def test_a_healthy_unet_in_all_its_forms(faults_of, kit, options):
    assert faults_of(kit.small_unet(**options)) == []


@pytest.mark.healthy
@pytest.mark.parametrize("norm", ["batch", "group", "layer", "instance", "none"])
@pytest.mark.parametrize("spectral", [False, True])
def test_a_healthy_discriminator_in_all_its_forms(faults_of, kit, norm, spectral):
    critic = kit.critic(norm=norm, spectral_norm=spectral)
    assert faults_of(kit.colorizer(discriminator=critic)) == []


class Blind(nn.Module):
    """Sees only some channels of what it is given."""

    def __init__(self, network: nn.Module, channels: slice) -> None:
        super().__init__()
        self.network = network
        self.channels = channels

    def forward(self, x):
        kept = torch.zeros_like(x)
        kept[:, self.channels] = x[:, self.channels]
        return self.network(kept)


@pytest.mark.planted("input-ignored")
@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("first", [True, False])
def test_a_gan_in_which_one_does_not_look(look, kit, network, first):
    at = {"generator": 1, "discriminator": 5}[network]  # behind the lines, behind the condition
    inner = UNet(in_channels=5, widths=[8, 12]) if network == "generator" else kit.critic()
    found = look(kit.colorizer(**{network: Blind(inner, slice(0, at) if first else slice(at, None))}))
    assert kit.faults(found)[0] == "input-ignored"
    assert network in kit.only(found, "input-ignored").where


@pytest.mark.planted("output-range")
def test_a_generator_whose_colors_end_too_soon(faults_of, kit):
    generator = nn.Sequential(UNet(in_channels=5, widths=[8, 12]), nn.Sigmoid(), nn.Hardtanh(0.0, 0.5))
    assert faults_of(kit.colorizer(generator=generator))[0] == "output-range"
