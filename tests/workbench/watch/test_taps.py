from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.watch.taps import listening


def heard(network, x):
    places = []
    with torch.no_grad(), listening(network, lambda seen: places.append(seen._replace(
        before=seen.before.clone(), after=seen.after.clone()))):  # fmt: skip
        network(x)
    return places


@pytest.mark.parametrize("inplace", [False, True])
def test_a_module_is_heard_with_what_went_in_and_came_out(inplace):
    conv = nn.Conv2d(2, 5, 3)
    network = nn.Sequential(conv, nn.ReLU(inplace=inplace), nn.Conv2d(5, 1, 1))
    x = torch.randn(3, 2, 8, 9)
    (seen,) = heard(network, x)
    assert (seen.name, seen.kind, seen.dim, seen.normed, seen.trained) == ("1", "relu", 1, False, True)
    torch.testing.assert_close(seen.before, conv(x))
    torch.testing.assert_close(seen.after, conv(x).clamp_min(0))
    assert seen.by_channel(seen.after).shape == (5, 3 * 6 * 7)
    assert not network[0]._forward_hooks and not network[1]._forward_pre_hooks


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 7), nn.LayerNorm(7), nn.Linear(7, 7)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x)))
        return F.relu(self.second(h)).tanh()


def test_functions_are_heard_where_they_are_called():
    network = nn.Sequential(Functional())
    network[0].second.requires_grad_(False)
    first, second, third = heard(network, torch.randn(2, 5, 4))
    assert [s.name for s in (first, second, third)] == ["0.relu", "0.relu#2", "0.tanh"]
    assert (first.normed, second.normed) == (True, False)
    assert (first.trained, second.trained) == (True, False)
    assert first.dim == 2, "the channels of a Linear are the last dimension"


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.LeakyReLU(0.2, inplace=True), "leaky_relu"),
        (nn.ReLU6(), "relu6"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.PReLU(3), "prelu"),
        (nn.SiLU(), "silu"),
        (nn.GELU(), "gelu"),
        (nn.ELU(), "elu"),
        (nn.SELU(), "elu"),
        (nn.Mish(), "mish"),
        (nn.Hardswish(), "hardswish"),
        (nn.Softplus(), "softplus"),
        (nn.Tanh(), "tanh"),
        (nn.Sigmoid(), "sigmoid"),
    ],
)
def test_every_activation_of_the_networks_is_known(module, kind):
    network = nn.Sequential(nn.Conv2d(1, 3, 1), module)
    assert [(s.name, s.kind) for s in heard(network, torch.randn(2, 1, 4, 5))] == [("1", kind)]


def test_under_autocast_and_in_a_unet():
    from project.networks import UNet

    network = UNet(widths=[4, 8], norm="batch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        places = heard(network, torch.rand(2, 3, 16, 24))
    assert len(places) == sum(isinstance(m, nn.ReLU) for m in network.modules())
    assert all(s.normed and s.kind == "relu" and s.before.shape[1] in (4, 8) for s in places)
    assert len({s.name for s in places}) == len(places)


def test_a_network_with_one_activation_for_all():
    act = nn.ReLU()
    network = nn.Sequential(nn.Conv2d(1, 2, 1), act, nn.Conv2d(2, 2, 1), act)
    assert [s.name for s in heard(network, torch.randn(1, 1, 3, 3))] == ["1", "1#2"]
