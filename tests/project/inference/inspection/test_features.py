"""The strongest places, against a plain loop over all of them; and the images of them."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from project.inference.inspection.features import Find, Shown, Strongest, draw_features
from project.inference.inspection.layers import UpTo
from project.inference.inspection.receptive import ReceptiveField, measure


def field(size=6, stride=2):
    return ReceptiveField((Fraction(stride),) * 2, (-2, -2), (size, size), stride)


def test_the_strongest_of_all_pictures_are_kept_strongest_first():
    random = torch.Generator().manual_seed(0)
    batches = [torch.randn(2, 3, 10, 13, generator=random) for _ in range(4)]
    strongest = Strongest(field(), count=5)
    for number, maps in enumerate(batches):
        strongest.update(maps, [2 * number, 2 * number + 1])
    finds = strongest.finds(3)
    pictures = torch.cat(batches)
    for number, places in finds.items():
        tops = []
        for picture, maps in enumerate(pictures[:, number]):
            for y in range(10):
                for x in range(13):
                    around = maps[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]  # 6 pixels, half of them: 2 units
                    if maps[y, x] == around.max():
                        tops.append((float(maps[y, x]), picture, y, x))
        assert [tuple(place) for place in places] == [pytest.approx(top) for top in sorted(tops, reverse=True)[:5]]
    means = [np.mean([place.value for place in places]) for places in finds.values()]
    assert means == sorted(means, reverse=True)
    assert list(strongest.finds(1)) == list(finds)[:1]


def test_patches_of_one_picture_overlap_by_half_at_most():
    maps = torch.zeros(1, 1, 30, 30)
    maps[0, 0, 10:14, 10:14] = torch.rand(4, 4) + 1
    strongest = Strongest(field(size=16))
    strongest.update(maps, [0])
    (places,) = strongest.finds(1).values()
    assert [place.value > 1 for place in places].count(True) == 1


def test_a_plateau_counts_once():
    maps = torch.zeros(1, 1, 20, 24)
    maps[0, 0, 3:15, 4:20] = 1.0
    strongest = Strongest(field())
    strongest.update(maps, [7])
    (places,) = strongest.finds(1).values()
    assert [place for place in places if place.value == 1] == [Find(1.0, 7, 3, 4)]


def test_maps_that_never_change_are_left_out_and_counted():
    maps = torch.zeros(2, 3, 6, 5)
    maps[0, 1, 2, 2] = 0.5
    maps[:, 2] = -1.0
    strongest = Strongest(field())
    strongest.update(maps[:1], [0])
    strongest.update(maps[1:], [1])
    assert list(strongest.finds(9)) == [1]
    assert strongest.same_everywhere == 2


def test_maps_of_a_single_place_are_compared_between_pictures():
    strongest = Strongest(field(size=64, stride=32))
    for number, value in enumerate([0.1, 0.7, 0.3]):
        strongest.update(torch.full((1, 1, 1, 1), value), [number])
    (places,) = strongest.finds(1).values()
    assert [place.picture for place in places] == [1, 2, 0]


def test_pictures_of_other_sizes_and_batches_make_no_difference():
    pictures = [torch.randn(1, 2, 5 + n, 9 - n) for n in range(3)]
    one, other = Strongest(field()), Strongest(field())
    for number, maps in enumerate(pictures):
        one.update(maps, [number])
    for number in (2, 0, 1):
        other.update(pictures[number], [number])
    assert one.finds(2) == other.finds(2)


def test_the_drawing_holds_what_a_map_answers_to():
    """A detector of red: its patches are of the red spots, and the reason is at their middle."""
    network = nn.Sequential(nn.Conv2d(3, 2, 5, padding=2), nn.ReLU(inplace=True)).requires_grad_(False)
    network[0].weight.zero_()
    network[0].bias.zero_()
    network[0].weight[1, :, 1:4, 1:4] = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    shape = (1, 3, 40, 56)
    x = torch.full(shape, 0.5)
    x[0, :, 10:13, 30:33] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    x[0, :, 0:2, 53:56] = torch.tensor([1.0, 0.1, 0.1])[:, None, None]  # at the corner
    features, seen = UpTo(network, "1"), measure(network, "1", 3, most=56)
    assert seen.size == (5, 5)
    strongest = Strongest(seen)
    strongest.update(features(x), [0])
    finds = strongest.finds(5)
    assert list(finds) == [1]
    assert (finds[1][0].y, finds[1][0].x) == (11, 31)
    assert finds[1][1].y <= 1 and finds[1][1].x >= 53
    nothing = torch.full((1, 3, 1, 1), 0.5)
    drawn = draw_features(
        {1: finds[1][:1]},
        seen,
        features,
        nothing,
        lambda number: Shown(x, x[0]),
        "title",
    )
    pixels = np.asarray(drawn)
    red = (pixels == [255, 0, 0]).all(axis=2)
    rows, columns = np.nonzero(red)
    zoom = (rows.max() - rows.min() + 1) // 3
    assert red.sum() == (3 * zoom) ** 2, "one patch, with the whole spot"
    assert rows.max() - rows.min() == columns.max() - columns.min()
    below = pixels[rows.min() - 3 * zoom : rows.max() + 3 * zoom, columns.max() + 1 :]
    dark = (below == np.array([103, 0, 31])).all(axis=2)  # the strong end of the scale
    assert dark.sum() == (3 * zoom) ** 2
