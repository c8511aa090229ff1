"""Layers by name, what their units see, the strongest places, and attributions that sum to what they explain."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from project.inference.features import (
    FeatureExtractor,
    Place,
    ReceptiveField,
    Strongest,
    attribute,
    choose_layer,
    draw_features,
    feature_layers,
    frozen_norms,
    receptive_field,
    recorded,
    stages,
)
from project.networks import Normalized, UNet
from workbench.errors import UserError


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return UNet(in_channels=2, out_channels=1, widths=[4, 6, 9], stem=2, norm="group").eval()


@pytest.fixture
def layers(network):
    return feature_layers(network, torch.rand(1, 2, 32, 40))


def test_layers_come_in_the_order_of_the_pass_with_their_shapes(layers):
    names = list(layers)
    order = ["head", "encoder.0", "down.0", "encoder.1", "down.1", "middle", "up.0", "join.0", "decoder.0", "tail"]
    assert [name for name in names if name in order] == order
    assert layers["head"] == (4, 16, 20)
    assert layers["encoder.1.0.body.0"] == layers["encoder.1"] == (6, 8, 10)
    assert layers["middle"] == (9, 4, 5)


def test_a_layer_is_found_by_its_name_in_the_network_or_in_the_model(layers):
    assert choose_layer("encoder.1", layers) == choose_layer("network.encoder.1", layers) == "encoder.1"
    with pytest.raises(UserError, match=r"--layer: 'encodr.1' is not known. Did you mean 'encoder.1'") as error:
        choose_layer("encodr.1", layers)
    assert "normalize_input, head, encoder.0, " in str(error.value) and "body" not in str(error.value)


def test_stages_lead_down_to_the_deepest_layer(network, layers):
    assert stages(network, layers) == ["head", "encoder.0", "down.0", "encoder.1", "down.1", "middle"]
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 3, 3)).eval()
    single = nn.Conv2d(3, 3, 1)
    flat = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.Linear(5 * 168, 7))
    for other, expected in (
        (plain, ["0", "1", "2"]),
        (Normalized(plain), ["network.0", "network.1", "network.2"]),
        (single, []),
        (nn.Sequential(nn.Sequential(single)), ["0.0"]),
        (flat, ["0"]),
    ):
        assert stages(other, feature_layers(other, torch.rand(1, 3, 12, 14))) == expected


def test_a_network_up_to_a_layer_gives_what_the_whole_has_there_and_computes_no_more(network):
    x = torch.rand(2, 2, 16, 24)
    beyond = []
    network.middle.register_forward_hook(lambda *_: beyond.append(1))
    with torch.no_grad():
        expected = network.encoder[0](network.head(nn.functional.pixel_unshuffle(network.normalize_input(x), 2)))
        assert torch.equal(FeatureExtractor(network, "encoder.0")(x), expected)
    assert not beyond
    with torch.no_grad():
        network(x)
    assert beyond, "the whole network is as it was"


def test_what_is_recorded_is_from_before_an_activation_in_place():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    x = torch.randn(1, 1, 5, 6)
    with recorded({"0": network[0]}) as passes:
        network(x)
    ((name, given, output),) = passes
    assert name == "0" and given is x and (output < 0).any()
    network(x)
    assert len(passes) == 1


def by_formula(layers):
    """Size and stride after layers of (kernel, stride): each adds kernel - 1 steps of the stride so far."""
    size, stride = 1, 1
    for kernel, step in layers:
        size += (kernel - 1) * stride
        stride *= step
    return size, stride


STEM, HEAD, STAGE, DOWN = [(2, 2)], [(3, 1)], [(3, 1)] * 2, [(2, 2)]


@pytest.mark.parametrize(
    ("name", "stem", "layers"),
    [
        ("head", 1, HEAD),
        ("head", 2, STEM + HEAD),
        ("encoder.0", 2, STEM + HEAD + STAGE),
        ("down.0", 1, HEAD + STAGE + DOWN),
        ("encoder.1", 1, HEAD + STAGE + DOWN + STAGE),
        ("middle", 2, STEM + HEAD + 2 * (STAGE + DOWN) + STAGE),
    ],
)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_unet_sees_what_the_formula_says(name, stem, layers, norm):
    network = UNet(widths=[4, 5, 6], stem=stem, norm=norm, activation="leaky_relu").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    field = receptive_field(network, name, 3, limit=200)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    size, stride = by_formula(layers)
    assert field.size == (size, size)
    assert field.stride == (stride, stride)


def test_sides_of_their_own_and_pooling():
    network = nn.Sequential(
        nn.Conv2d(2, 3, (3, 5), padding=(1, 2)),
        nn.ReLU(),
        nn.MaxPool2d((2, 3)),
        nn.Conv2d(3, 4, (1, 3), padding=(0, 1)),
    )
    field = receptive_field(network, "3", 2, limit=96)
    assert field.size == (3 + 1, 5 + 2 + 2 * 3)
    assert field.stride == (2, 3)


@pytest.mark.parametrize(("depth", "units"), [(5, 2), (6, 1)])
def test_a_deep_network_leaves_few_units_or_one(depth, units):
    network = nn.Sequential(*(nn.Conv2d(1 if n == 0 else 2, 2, 3, stride=2, padding=1) for n in range(depth)))
    assert network(torch.rand(1, 1, 64, 64)).shape[2] == units
    field = receptive_field(network, str(depth - 1), 1, limit=64)
    assert min(field.size) >= 32 and field.stride == (2**depth, 2**depth)
    assert min(receptive_field(UNet(widths=[2] * 5, norm="none"), "middle", 3, limit=40).size) >= 40, "larger than any"


@pytest.mark.parametrize("name", ["encoder.1", "middle", "join.0", "decoder.1"])
def test_a_unit_changes_with_the_pixels_in_its_box_alone(name):
    network = UNet(widths=[4, 5, 6], stem=2, norm="none", activation="tanh", in_channels=1, out_channels=1).eval()
    field, features = receptive_field(network, name, 1, limit=160), FeatureExtractor(network, name)
    x = torch.rand(1, 1, 96, 128, dtype=torch.float64, requires_grad=True)
    network.double()
    maps = features(x)
    y, column = maps.shape[2] // 2 + 1, maps.shape[3] // 2 - 1
    (gradient,) = torch.autograd.grad(maps[0, :, y, column].sum(), x)
    rows, columns = gradient[0, 0].nonzero().unbind(1)
    top, left, bottom, right = field.box(y, column)
    found = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    if name in ("encoder.1", "middle"):
        assert [int(edge) for edge in found] == [top, left, bottom, right]
    else:  # units differ behind an enlarging layer: less than a step
        assert all(abs(int(seen) - edge) < field.step for seen, edge in zip(found, field.box(y, column), strict=True))


def test_of_a_linear_layer_each_pixel_gets_its_own_part():
    layer = nn.Conv2d(3, 4, 3, padding=1)
    x, baseline = torch.rand(1, 3, 7, 9), torch.rand(1, 3, 1, 1).expand(1, 3, 7, 9)
    found = attribute(layer, x, baseline, (2, 4, 5))
    expected = torch.zeros(7, 9)
    expected[3:6, 4:7] = (layer.weight[2] * (x - baseline)[0, :, 3:6, 4:7]).sum(dim=0)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_the_parts_sum_to_the_activation_less_that_of_the_baseline(norm):
    network = UNet(widths=[8, 12], stem=2, norm=norm, activation="silu").eval().requires_grad_(False)
    features = FeatureExtractor(network, "middle")
    x, baseline = torch.rand(1, 3, 24, 32), torch.full((1, 3, 24, 32), 0.5)
    for unit in [(0, 1, 2), (7, 3, 7), (11, 0, 0)]:
        change = float(features(x)[(0, *unit)] - features(baseline)[(0, *unit)])
        assert float(attribute(features, x, baseline, unit).sum()) == pytest.approx(
            change, abs=0.02 + 0.05 * abs(change)
        )


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_with_norms_held_still_a_part_answers_as_in_the_whole(norm):
    network = UNet(widths=[4, 6], stem=2, norm=norm).eval()
    for part in network.modules():
        if isinstance(part, nn.GroupNorm | nn.InstanceNorm2d):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    features = FeatureExtractor(network, "middle")  # sees 32 x 32 pixels, 4 pixels from one to the next
    x = torch.rand(1, 3, 80, 96)
    x[..., 60:, :] *= 0.1
    part = x[..., 16:64, 24:72]
    with torch.no_grad():
        whole, alone = features(x), features(part)
        with frozen_norms(features, x):
            kept = features(part)
            torch.testing.assert_close(features(x), whole, atol=1e-4, rtol=1e-4)
        assert torch.equal(features(part), alone), "released afterwards"
    inner = (slice(None), slice(None), slice(5, 7), slice(5, 7))
    torch.testing.assert_close(kept[inner], whole[..., 9:11, 11:13], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(alone[inner], whole[..., 9:11, 11:13], atol=1e-2)


def field(size=6, stride=2):
    return ReceptiveField((size, size), (Fraction(stride),) * 2, (-2, -2), stride)


def test_the_strongest_places_of_all_images_are_kept_strongest_first():
    """Against a plain loop over all places."""
    batches = [torch.randn(2, 3, 10, 13) for _ in range(4)]
    strongest = Strongest(field(), count=5)
    for number, maps in enumerate(batches):
        strongest.update(maps, [2 * number, 2 * number + 1])
    found = strongest.places(3)
    for number, some in found.items():
        tops = []
        for image, maps in enumerate(torch.cat(batches)[:, number]):
            for y in range(10):
                for x in range(13):
                    around = maps[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]  # 6 pixels, half of them: 2 units
                    if maps[y, x] == around.max():
                        tops.append((float(maps[y, x]), image, y, x))
        assert [tuple(place) for place in some] == [pytest.approx(top) for top in sorted(tops, reverse=True)[:5]]
    means = [np.mean([place.value for place in some]) for some in found.values()]
    assert means == sorted(means, reverse=True)
    assert list(strongest.places(1)) == list(found)[:1]


def test_patches_overlap_by_half_at_most_and_plateaus_count_once():
    maps = torch.zeros(1, 1, 30, 30)
    maps[0, 0, 10:14, 10:14] = torch.rand(4, 4) + 1
    strongest = Strongest(field(size=16))
    strongest.update(maps, [0])
    assert [place.value > 1 for place in strongest.places(1)[0]].count(True) == 1
    plateau = torch.zeros(1, 1, 20, 24)
    plateau[0, 0, 3:15, 4:20] = 1.0
    strongest = Strongest(field())
    strongest.update(plateau, [7])
    assert [place for place in strongest.places(1)[0] if place.value == 1] == [Place(1.0, 7, 3, 4)]


def test_constant_maps_are_left_out_and_counted_and_single_places_compared_between_images():
    maps = torch.zeros(2, 3, 6, 5)
    maps[0, 1, 2, 2] = 0.5
    maps[:, 2] = -1.0
    strongest = Strongest(field())
    strongest.update(maps[:1], [0])
    strongest.update(maps[1:], [1])
    assert list(strongest.places(9)) == [1]
    assert strongest.constant == 2
    strongest = Strongest(field(size=64, stride=32))
    for number, value in enumerate([0.1, 0.7, 0.3]):
        strongest.update(torch.full((1, 1, 1, 1), value), [number])
    assert [place.image for place in strongest.places(1)[0]] == [1, 2, 0]


def test_the_figure_shows_the_patches_that_a_map_responds_to_and_why():
    """A detector of red: its patches are of the red spots, and the attribution is at their center."""
    network = nn.Sequential(nn.Conv2d(3, 2, 5, padding=2), nn.ReLU(inplace=True)).requires_grad_(False)
    network[0].weight.zero_()
    network[0].bias.zero_()
    network[0].weight[1, :, 1:4, 1:4] = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    x = torch.full((1, 3, 40, 56), 0.5)
    x[0, :, 10:13, 30:33] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    x[0, :, 0:2, 53:56] = torch.tensor([1.0, 0.1, 0.1])[:, None, None]  # at the corner
    features, seen = FeatureExtractor(network, "1"), receptive_field(network, "1", 3, limit=56)
    assert seen.size == (5, 5)
    strongest = Strongest(seen)
    strongest.update(features(x), [0])
    places = strongest.places(5)
    assert list(places) == [1]
    assert (places[1][0].y, places[1][0].x) == (11, 31)
    assert places[1][1].y <= 1 and places[1][1].x >= 53
    baseline = torch.full((1, 3, 1, 1), 0.5)
    figure = draw_features({1: places[1][:2]}, seen, features, baseline, lambda number: (x, x[0]), "title")
    patches, reasons = (np.asarray(figure.axes[axis].images[0].get_array()) for axis in (0, 1))
    side = patches.shape[0] - 2  # two patches side by side, a pixel of white around each
    spot = slice(1 + side // 2 - 1, 1 + side // 2 + 2)
    red = (patches[:, : side + 2] == [1, 0, 0]).all(axis=2)
    assert red.sum() == 9 and red[spot, spot].all(), "the whole spot, at the center"
    raised = reasons[:, : side + 2] > 0.99
    assert raised.sum() == 9 and raised[spot, spot].all()
    corner = patches[:, side + 1 :]
    assert (corner == 0.5).all(axis=2).mean() > 0.3, "gray outside of the image"
