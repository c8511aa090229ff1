import math

import numpy as np
import pytest
import torch
from torch import nn

from project.networks import Normalize, Normalized
from project.networks.layers import ConvBlock, LayerNorm2d, SelfAttention, activation_gain, initialize
from workbench.errors import UserError


def test_layer_norm_normalizes_each_pixel_over_its_channels():
    x = torch.arange(2 * 3 * 4 * 5.0).sin().reshape(2, 3, 4, 5)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(LayerNorm2d(3)(x), expected)
    x = x.contiguous(memory_format=torch.channels_last)
    assert LayerNorm2d(3)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("last", [True, False])
def test_a_residual_block_adds_its_input_and_may_leave_the_last_activation_out(last):
    block = ConvBlock(3, norm="none", residual=True, last_activation=last)
    first, second = (layer for layer in block.body if isinstance(layer, nn.Conv2d))
    x = torch.linspace(-1, 1, 3 * 5 * 4).reshape(1, 3, 5, 4)
    inner = second(first(x).relu())
    torch.testing.assert_close(block(x), x + (inner.relu() if last else inner))


@pytest.mark.parametrize(("channels", "heads"), [(5, 1), (64, 2), (70, 2), (99, 3)])
def test_attention_equals_torchs_between_pixels(channels, heads):
    layer = SelfAttention(channels).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    reference = nn.MultiheadAttention(channels, heads, batch_first=True).double()
    weights = (layer.to_qkv.weight, layer.to_qkv.bias, layer.to_out.weight, layer.to_out.bias)
    names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    reference.load_state_dict(dict(zip(names, weights, strict=True)))
    images = torch.randn(2, channels, 3, 4, dtype=torch.float64) * 2 + 1
    pixels = layer.norm(images).flatten(2).transpose(1, 2)
    attended = reference(pixels, pixels, pixels)[0].transpose(1, 2).reshape(images.shape)
    torch.testing.assert_close(layer(images), images + attended)


# Initialization


@pytest.mark.parametrize(("scheme", "gain", "std"), [("kaiming", math.sqrt(2), math.sqrt(2 / (64 * 9))),
                                                     ("xavier", 1.0, math.sqrt(2 / (96 * 9)))])  # fmt: skip
def test_initial_weights_spread_by_the_fans(scheme, gain, std):
    conv = nn.Conv2d(64, 32, 3)
    initialize(conv, scheme, gain)
    assert conv.weight.std().item() == pytest.approx(std, rel=0.03)
    assert not conv.bias.any()


def test_each_tap_of_a_transposed_convolution_is_one_linear_map():
    up = nn.ConvTranspose2d(64, 32, 2, stride=2)
    initialize(up, "kaiming")
    # Every output pixel gets 64 values, so unit variance in gives unit variance out.
    assert up.weight.std().item() == pytest.approx(1 / math.sqrt(64), rel=0.03)
    assert up(torch.randn(4, 64, 9, 7)).std().item() == pytest.approx(1, rel=0.1)
    initialize(up, "orthogonal")
    tap = up.weight[:, :, 0, 1].T
    torch.testing.assert_close(tap @ tap.T, torch.eye(32), atol=1e-5, rtol=0)


def test_gains():
    gains = {"relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / 1.04), "identity": 1, "silu": math.sqrt(2)}
    assert {name: activation_gain(name) for name in gains} == pytest.approx(gains)
    with pytest.raises(UserError, match="Did you mean 'kaiming'"):
        initialize(nn.Conv2d(1, 1, 1), "kaming")


# Normalization


def test_forward_and_inverse_equal_numpy():
    image = np.random.default_rng(0).random((2, 3, 5, 7), dtype=np.float32)
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    normalize = Normalize(3, mean, std)
    expected = (image - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    normalized = normalize(torch.from_numpy(image))
    np.testing.assert_allclose(normalized.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(normalize.inverse(normalized).numpy(), image, atol=1e-6)


@pytest.mark.parametrize(("mean", "std", "message"), [([0.1, 0.2], 1.0, "2 values"), (0.0, [1.0, 0.0, 1.0], "above 0")])
def test_impossible_statistics_are_refused(mean, std, message):
    with pytest.raises(UserError, match=message):
        Normalize(3).set(mean, std)


def test_any_network_is_wrapped_between_the_two():
    wrapped = Normalized(torch.nn.Conv2d(3, 2, 1, bias=False), 3, 2)
    torch.nn.init.zeros_(wrapped.network.weight)
    wrapped.normalize_output.set([0.25, 0.75], 0.1)
    assert torch.equal(wrapped(torch.rand(1, 3, 4, 5))[0, :, 1, 2], torch.tensor([0.25, 0.75]))
