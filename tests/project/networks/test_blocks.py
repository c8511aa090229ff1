import pytest
import torch
from project.networks.blocks import ConvBlock, Join, LayerNorm2d, make_activation, make_down, make_norm, make_up
from torch import nn


def test_layer_norm_normalises_each_pixel_over_its_channels():
    x = torch.arange(2 * 3 * 4 * 5.0).sin().reshape(2, 3, 4, 5)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(LayerNorm2d(3)(x), expected)


def test_layer_norm_keeps_channels_last():
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert LayerNorm2d(3)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (12, 6), (7, 7), (22, 2), (1, 1)])
def test_groups_divide_the_channels(channels, groups):
    assert make_norm("group", channels).num_groups == groups


def test_norms_by_name():
    assert isinstance(make_norm("batch", 4), nn.BatchNorm2d)
    assert make_norm("instance", 4).affine
    assert make_norm("none", 4) is None


def test_prelu_learns_a_slope_a_channel():
    assert make_activation("prelu", 5).weight.shape == (5,)


@pytest.mark.parametrize("how", ["strided", "max", "average"])
def test_down_halves_unequal_sides(how):
    assert make_down(how, 3, 5, True)(torch.rand(2, 3, 8, 6)).shape == (2, 5, 4, 3)


@pytest.mark.parametrize("how", ["transposed", "bilinear", "pixel_shuffle"])
def test_up_doubles_unequal_sides(how):
    assert make_up(how, 5, 3, True)(torch.rand(2, 5, 4, 7)).shape == (2, 3, 8, 14)


def test_add_adds_none_ignores_and_concat_mixes():
    x, kept = torch.rand(1, 2, 3, 4), torch.rand(1, 2, 3, 4)
    assert torch.equal(Join(2, "add", True)(x, kept), x + kept)
    assert torch.equal(Join(2, "none", True)(x, kept), x)
    concat = Join(2, "concat", False)
    weight = concat.mix.weight[:, :, 0, 0]
    expected = torch.einsum("oi,bihw->bohw", weight, torch.cat([x, kept], 1))
    torch.testing.assert_close(concat(x, kept), expected)


@pytest.mark.parametrize("last", [True, False])
def test_a_residual_block_adds_its_input_and_may_leave_the_last_activation_out(last):
    block = ConvBlock(3, 2, 3, "relu", "none", 8, True, 0.0, residual=True, last_activation=last)
    first, second = (layer for layer in block.body if isinstance(layer, nn.Conv2d))
    x = torch.linspace(-1, 1, 3 * 5 * 4).reshape(1, 3, 5, 4)
    inner = second(first(x).relu())
    torch.testing.assert_close(block(x), x + (inner.relu() if last else inner))


def test_dropout_drops_whole_channels_in_training_only():
    block = ConvBlock(64, 1, 1, "identity", "none", 8, True, 0.5, residual=False, last_activation=True)
    x = torch.ones(1, 64, 3, 3)
    dropped = (block.train()(x) == 0).all(dim=(2, 3)).float().mean()
    assert 0.2 < dropped < 0.8
    assert not (block.eval()(x) == 0).any()
