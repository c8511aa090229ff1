"""Layers by name, the strongest places, and attributions that sum to what they explain."""

import numpy as np
import pytest
import torch
from torch import nn

from project.inference.features import (
    WINDOW,
    Place,
    Strongest,
    attribute,
    choose_layer,
    draw_features,
    explain_place,
    feature_layers,
    recorded,
)
from project.networks import Normalized, UNet
from workbench.errors import UserError


def test_layers_come_in_the_order_of_the_pass_with_their_maps_and_strides():
    layers = feature_layers(UNet(in_channels=2, out_channels=1, widths=[4, 6, 9], stem=2, norm="group").eval(), 2)
    order = ["head", "encoder.0", "down.0", "encoder.1", "down.1", "middle", "up.0", "join.0", "decoder.0", "tail"]
    assert [name for name in layers if name in order] == order
    assert layers["head"] == (4, 2)
    assert layers["encoder.1.0.body.0"] == layers["encoder.1"] == (6, 4)
    assert layers["middle"] == (9, 8)
    assert choose_layer(layers, "encoder.1") == "encoder.1"
    with pytest.raises(UserError, match=r"--layer: 'encodr.1' is not known. Did you mean 'encoder.1'") as error:
        choose_layer(layers, "encodr.1")
    assert "Known: head, encoder.0, " in str(error.value) and "body" not in str(error.value)


def test_without_a_name_the_deepest_layer_is_taken_whose_units_fit_into_the_window():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 3, 3))
    for network, expected in (
        (UNet(widths=[4, 6, 9], stem=2), "middle"),
        (UNet(widths=[4, 6, 9, 12, 15]), "encoder.3"),
        (plain, "2"),
        (Normalized(plain), "network.2"),
        (nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.Linear(5 * WINDOW**2, 1)), "0"),
    ):
        assert choose_layer(feature_layers(network.eval(), 3), None) == expected
    with pytest.raises(UserError, match="--maps 0"):
        choose_layer(feature_layers(nn.Conv2d(3, 3, 1), 3), None)


def test_what_is_recorded_is_from_before_an_activation_in_place():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    x = torch.randn(1, 1, 5, 6)
    with recorded({"0": network[0]}) as passes:
        network(x)
    ((name, given, output),) = passes
    assert name == "0" and given is x and (output < 0).any()
    network(x)
    assert len(passes) == 1


def test_of_a_linear_layer_each_pixel_gets_its_own_part():
    layer = nn.Conv2d(3, 4, 3, padding=1)
    x, baseline = torch.rand(1, 3, 7, 9), torch.rand(1, 3, 1, 1)
    found = attribute(nn.Sequential(layer, nn.ReLU(inplace=True)), "0", x, baseline, (2, 4, 5))
    expected = torch.zeros(7, 9)
    expected[3:6, 4:7] = (layer.weight[2] * (x - baseline)[0, :, 3:6, 4:7]).sum(dim=0)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_the_parts_sum_to_the_activation_less_that_of_the_baseline(norm):
    network = UNet(widths=[8, 12], stem=2, norm=norm, activation="silu").eval().requires_grad_(False)
    x, baseline = torch.rand(1, 3, 24, 32), torch.full((1, 3, 1, 1), 0.5)
    with recorded({"middle": network.middle}) as passes:
        network(x)
        network(baseline.expand_as(x))
    for unit in [(0, 1, 2), (7, 3, 7), (11, 0, 0)]:
        change = float(passes[0][2][(0, *unit)] - passes[1][2][(0, *unit)])
        found = float(attribute(network, "middle", x, baseline, unit).sum())
        assert found == pytest.approx(change, abs=0.02 + 0.05 * abs(change))


def test_the_strongest_places_of_all_images_are_kept_strongest_first():
    """Against a plain loop over all places."""
    batches = [torch.randn(2, 3, 10, 13) for _ in range(4)]
    strongest = Strongest(stride=8)
    for number, maps in enumerate(batches):
        strongest.update(maps, [2 * number, 2 * number + 1])
    found = strongest.places(3)
    for number, some in found.items():
        tops = []
        for image, maps in enumerate(torch.cat(batches)[:, number]):
            for y in range(10):
                for x in range(13):
                    around = maps[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]  # 16 pixels are 2 units
                    if maps[y, x] == around.max():
                        tops.append((float(maps[y, x]), image, y, x))
        assert [tuple(place) for place in some] == [pytest.approx(top) for top in sorted(tops, reverse=True)[:9]]
    firsts = [some[0].value for some in found.values()]
    assert firsts == sorted(firsts, reverse=True)
    assert list(strongest.places(1)) == list(found)[:1]


def test_plateaus_count_once_and_single_places_are_compared_between_images():
    plateau = torch.zeros(1, 1, 20, 24)
    plateau[0, 0, 3:15, 4:20] = 1.0
    strongest = Strongest(stride=4)
    strongest.update(plateau, [7])
    assert [place for place in strongest.places(1)[0] if place.value == 1] == [Place(1.0, 7, 3, 4)]
    strongest = Strongest(stride=32)
    for number, value in enumerate([0.1, 0.7, 0.3]):
        strongest.update(torch.full((1, 1, 1, 1), value), [number])
    assert [place.image for place in strongest.places(1)[0]] == [1, 2, 0]


@pytest.mark.parametrize("size", [(40, 56), (300, 420)])
def test_the_figure_shows_the_patches_that_a_map_responds_to_and_why(size):
    """A detector of red behind a stride: its patches are of red spots, and the attribution is at their center."""
    network = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(inplace=True)).requires_grad_(False)
    network[1].weight.zero_()
    network[1].bias.zero_()
    network[1].weight[1, :, 1, 1] = torch.tensor([1.0, -1.0, -1.0])
    height, width = size
    x = torch.full((1, 3, height, width), 0.5)
    x[0, :, height // 2 : height // 2 + 2, width // 2 : width // 2 + 2] = torch.eye(3)[0][:, None, None]
    x[0, :, 0:2, width - 2 :] = torch.tensor([1.0, 0.1, 0.1])[:, None, None]  # at the corner
    assert feature_layers(network, 3)["2"] == (2, 2)
    strongest = Strongest(stride=2)
    with recorded({"2": network[2]}) as passes:
        network(x)
    strongest.update(passes[0][2], [0])
    places = {1: strongest.places(1)[1][:2]}
    assert [place[1:] for place in places[1]] == [(0, height // 4, width // 4), (0, 0, width // 2 - 1)]
    baseline = torch.full((1, 3, 1, 1), 0.5)
    explained = {1: [explain_place(network, "2", 2, 1, place, x, x[0], baseline) for place in places[1]]}
    patch, values = explained[1][0]
    assert patch.shape == (3, WINDOW + 1, WINDOW + 1) and values.shape == patch.shape[1:]
    figure = draw_features(places, explained, "title")
    patches, reasons = (np.asarray(figure.axes[axis].images[0].get_array()) for axis in (0, 1))
    side = patches.shape[0] - 2  # two patches side by side, a pixel of white around each
    spot = slice(side // 2, side // 2 + 2)
    red = (patches[:, : side + 2] == [1, 0, 0]).all(axis=2)
    assert red.sum() == 4 and red[spot, spot].all(), "the whole spot, at the center"
    raised = reasons[:, : side + 2] > 0.99
    assert raised.sum() == 4 and raised[spot, spot].all()
    corner = patches[:, side + 1 :]
    assert (corner == 0.5).all(axis=2).mean() > 0.3, "gray outside of the image"
