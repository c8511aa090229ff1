"""What a unit sees, against the formula, and against what changes it."""

import pytest
import torch
from torch import nn

from project.inference.inspection.layers import UpTo
from project.inference.inspection.receptive import measure
from project.networks import UNet


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
@pytest.mark.parametrize("norm", ["none", "group", "instance", "batch"])
def test_a_unet_sees_what_the_formula_says(name, stem, layers, norm):
    network = UNet(widths=[4, 5, 6], stem=stem, norm=norm, norm_groups=1, activation="leaky_relu").eval()
    field = measure(network, name, 3, most=200)
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
    field = measure(network, "3", 2, most=96)
    assert field.size == (3 + 1, 5 + 2 + 2 * 3)
    assert field.stride == (2, 3)


def test_a_field_larger_than_any_picture_is_not_searched_to_its_end():
    network = UNet(widths=[2, 2, 2, 2, 2], norm="none")
    field = measure(network, "middle", 3, most=40)
    assert min(field.size) >= 40


@pytest.mark.parametrize(("depth", "units"), [(5, 2), (6, 1)])
def test_a_deep_network_leaves_few_units_or_one(depth, units):
    network = nn.Sequential(*(nn.Conv2d(1 if n == 0 else 2, 2, 3, stride=2, padding=1) for n in range(depth)))
    assert network(torch.rand(1, 1, 64, 64)).shape[2] == units
    field = measure(network, str(depth - 1), 1, most=64)
    assert min(field.size) >= 32 and field.stride == (2**depth, 2**depth)


@pytest.mark.parametrize("name", ["encoder.1", "middle", "join.0", "decoder.1"])
def test_a_unit_changes_with_the_pixels_in_its_box_alone(name):
    torch.manual_seed(3)
    network = UNet(widths=[4, 5, 6], stem=2, norm="none", activation="tanh", in_channels=1, out_channels=1).eval()
    field, features = measure(network, name, 1, most=160), UpTo(network, name)
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
    else:  # units differ behind an enlarging layer: at most one step more
        assert 0 <= found[0] - top <= field.step and 0 <= bottom - found[2] <= field.step
        assert 0 <= found[1] - left <= field.step and 0 <= right - found[3] <= field.step


def test_the_network_stays_as_it_was():
    network = UNet(widths=[4, 5]).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure(network, "middle", 3, most=64)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.tail.weight.dtype == torch.float32
