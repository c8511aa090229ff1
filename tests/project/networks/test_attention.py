"""Self-attention: the formula of the paper, place by place."""

import numpy as np
import pytest
import torch
from project.networks.attention import SelfAttention

from project.networks import UNet
from workbench.errors import UserError


def by_hand(layer, picture):
    """(C, H, W) -> (C, H, W), in NumPy and float64, one place at a time."""
    channels = len(picture)
    x = picture.reshape(channels, -1)
    normal = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    gain, shift, look, give = (
        part.detach().double().numpy().reshape(len(part), -1)
        for part in (layer.norm.weight, layer.norm.bias, layer.look.weight, layer.give.weight)
    )
    parts = look @ (normal * gain + shift) + layer.look.bias.detach().double().numpy()[:, None]
    query, key, value = parts.reshape(3, channels, -1)
    each = channels // layer.heads
    taken = np.zeros_like(x)
    for head in range(layer.heads):
        rows = slice(head * each, (head + 1) * each)
        for place in range(x.shape[1]):
            match = np.exp(query[rows, place] @ key[rows] / np.sqrt(each))
            taken[rows, place] = value[rows] @ (match / match.sum())
    return (x + give @ taken + layer.give.bias.detach().double().numpy()[:, None]).reshape(picture.shape)


@pytest.mark.parametrize(("channels", "heads"), [(5, 1), (64, 2), (70, 2), (99, 3)])
def test_it_is_the_papers_formula(channels, heads):
    torch.manual_seed(0)
    layer = SelfAttention(channels).double()
    assert layer.heads == heads
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    pictures = torch.randn(2, channels, 3, 4, dtype=torch.float64) * 2 + 1
    expected = np.stack([by_hand(layer, picture.numpy()) for picture in pictures])
    np.testing.assert_allclose(layer(pictures).detach().numpy(), expected, atol=1e-10)


def test_a_far_place_is_reached_in_one_layer():
    torch.manual_seed(0)
    picture = torch.randn(1, 4, 9, 7, requires_grad=True)
    SelfAttention(4)(picture)[0, :, 0, 0].sum().backward()
    assert picture.grad[0, :, -1, -1].abs().min() > 1e-6


def test_the_levels_of_a_unet_that_get_it():
    network = UNet(widths=[4, 6, 8], attention=[1, 2])
    having = [name for name, part in network.named_modules() if isinstance(part, SelfAttention)]
    assert having == ["encoder.1.1", "middle.1", "decoder.0.1"]
    with pytest.raises(UserError, match=r"attention is \[3\], and its levels are 0 to 2"):
        UNet(widths=[4, 6, 8], attention=[3])
