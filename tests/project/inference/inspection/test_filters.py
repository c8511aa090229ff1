"""Filters in their places."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from project.inference.inspection.filters import draw_filters, first_filters
from project.networks import PatchGAN, UNet


@pytest.mark.parametrize(("channels", "stem"), [(3, 1), (3, 2), (5, 3), (1, 2)])
def test_put_back_they_do_to_the_picture_what_the_layer_does(channels, stem):
    torch.manual_seed(0)
    network = UNet(in_channels=channels, widths=[6, 7], stem=stem, out_channels=1).eval()
    x = torch.rand(1, channels, 12 * stem, 10 * stem)
    found = first_filters(network, x)
    assert (found.layer, found.stem) == ("head", stem)
    expected = network.head(F.pixel_unshuffle(x, stem))
    given = F.conv2d(x, found.weights, network.head.bias, stride=stem, padding=stem)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)


def test_the_first_is_the_one_that_the_pass_comes_by_first():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 3, 1), nn.Conv2d(2, 4, (3, 5))

        def forward(self, x):
            return self.a(self.b(x))

    found = first_filters(Backwards(), torch.rand(1, 2, 9, 9))
    assert found.layer == "b"
    assert found.weights.shape == (4, 2, 3, 5)
    assert first_filters(nn.Flatten(), torch.rand(1, 2, 9, 9)) is None


def test_a_discriminator_with_a_normalised_spectrum():
    network = PatchGAN(in_channels=6, width=5, spectral_norm=True).eval()
    found = first_filters(network, torch.rand(1, 6, 48, 56))
    assert found.weights.shape == (5, 6, 4, 4)
    torch.testing.assert_close(found.weights, network.blocks[0][0].weight)


def test_the_drawing_shows_every_weight_on_its_filters_own_scale():
    found = first_filters(nn.Conv2d(3, 2, 2), torch.rand(1, 3, 5, 5))
    weights = torch.zeros(2, 3, 2, 2)
    weights[0, 0, 0, 1] = 4.0
    weights[1, 2, 1, 0] = -0.25
    pixels = np.asarray(draw_filters(found._replace(weights=weights), []))
    gray, red, yellow = ([128, 128, 128], [255, 128, 128], [128, 128, 0])
    areas = {str(color): int((pixels == color).all(axis=2).sum()) for color in (gray, red, yellow)}
    assert areas.pop(str(gray)) == pytest.approx(6 * 30 * 30, abs=50), "letters have gray pixels as well"
    assert areas == {str(red): 30 * 30, str(yellow): 30 * 30}


def test_other_channels_get_a_grid_each():
    network = UNet(in_channels=5, widths=[6, 7])
    found = first_filters(network.eval(), torch.rand(1, 5, 16, 16))
    few = draw_filters(found, ["gray", "a", "b", "c", "d"])
    three = draw_filters(found._replace(weights=found.weights[:, :3]), ["red", "green", "blue"])
    assert few.height > three.height
    assert draw_filters(found, ["too few names"]).size == few.size
