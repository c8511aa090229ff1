import math

import pytest
import torch
from project.networks.initialize import activation_gain, initialize
from torch import nn

from workbench.errors import UserError


def test_kaiming_spreads_by_the_fan_in_and_the_gain():
    conv = nn.Conv2d(64, 32, 3)
    initialize(conv, "kaiming", gain=math.sqrt(2))
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    assert not conv.bias.any()


def test_xavier_spreads_by_both_fans():
    conv = nn.Conv2d(64, 32, 3)
    initialize(conv, "xavier")
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (96 * 9)), rel=0.03)


def test_orthogonal_rows_are_orthonormal():
    conv = nn.Conv2d(8, 16, 3)
    initialize(conv, "orthogonal")
    rows = conv.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(16), atol=1e-5, rtol=0)


def test_each_tap_of_a_transposed_convolution_is_one_linear_map():
    up = nn.ConvTranspose2d(64, 32, 2, stride=2)
    initialize(up, "kaiming")
    # Every output pixel is fed by 64 values, so unit variance in gives unit variance out.
    assert up.weight.std().item() == pytest.approx(1 / math.sqrt(64), rel=0.03)
    assert up(torch.randn(4, 64, 9, 7)).std().item() == pytest.approx(1, rel=0.1)
    initialize(up, "orthogonal")
    tap = up.weight[:, :, 0, 1].T
    torch.testing.assert_close(tap @ tap.T, torch.eye(32), atol=1e-5, rtol=0)


def test_gains():
    assert activation_gain("relu") == pytest.approx(math.sqrt(2))
    assert activation_gain("LeakyReLU") == pytest.approx(math.sqrt(2 / 1.04))
    assert activation_gain("identity") == 1
    assert activation_gain("silu") == pytest.approx(math.sqrt(2))


def test_an_unknown_scheme_is_told():
    with pytest.raises(UserError, match="Did you mean 'kaiming'"):
        initialize(nn.Conv2d(1, 1, 1), "kaming")
