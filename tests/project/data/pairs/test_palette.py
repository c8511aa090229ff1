"""Hints without their places."""

import numpy as np
import pytest
import torch

from project.data.pairs import PaletteHints, Point, SpatialHints
from workbench.errors import UserError

SEED = torch.tensor([11, 12, 13, 2**62])


def slots(planes):
    """(B, slots, 4) of planes that are found to be constant."""
    assert torch.equal(planes.amin((2, 3)), planes.amax((2, 3)))
    return planes[:, :, 0, 0].unflatten(1, (-1, 4))


def test_the_colors_are_those_of_spatial_hints(pictures):
    image = pictures()
    planes = SpatialHints().exact(image, SEED, 1)
    expected = planes[:, :3].flatten(2).amax(2)  # the one square's color; all else is 0
    found = slots(PaletteHints(5).exact(image, SEED, 1))
    assert found.shape == (4, 5, 4)
    assert torch.equal(found[:, 0, :3], expected) and (found[:, 0, 3] == 1).all()
    assert not found[:, 1:].any()


def test_dark_colors_come_first(pictures):
    found = slots(PaletteHints(8).exact(pictures(), SEED, 6)).numpy()
    assert (found[:, :6, 3] == 1).all() and not found[:, 6:].any()
    light = found[:, :6, :3] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(light, axis=1) >= 0).all() and (np.ptp(light, axis=1) > 0).all()


def test_fewer_colors_are_among_more(pictures):
    hints = PaletteHints(8)
    few, many = (slots(hints.exact(pictures(), SEED, count)) for count in (3, 7))
    for picture in range(4):
        assert {tuple(color) for color in few[picture, :3].tolist()} < {
            tuple(color) for color in many[picture].tolist()
        }
    assert torch.equal(hints.exact(pictures(), SEED, 100), hints.exact(pictures(), SEED, 8))


def test_training_counts_and_shares():
    torch.manual_seed(0)
    found = slots(
        PaletteHints(20, none=0.3, all=0.1, count_p=0.5, noise=0, drop=(0, 0))(torch.ones(4000, 3, 2, 3), None, True)
    )
    count = found[..., 3].sum(1)
    assert torch.equal(found[..., :1].expand(-1, -1, 3), found[..., :3])
    assert torch.equal(found[..., 0], found[..., 3])  # white where there is one, or nothing
    assert (count == 0).double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (count == 20).double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert count[(count > 0) & (count < 20)].double().mean().item() == pytest.approx(2, rel=0.05)


def test_a_palette_given_by_hand():
    red, white, green = (1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.5, 0.0)
    found = slots(PaletteHints(4).given(5, 7, [Point(99, -3, red), Point(0, 0, white), Point(0, 0, green)]))
    assert found[0].tolist() == [[0, 0.5, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]


def test_more_colors_than_slots():
    with pytest.raises(UserError, match=r"has 3 colors, .* at most 2 \(data\.pairs\.hints\.colors"):
        PaletteHints(2).given(5, 7, [Point(0, 0, (0, 0, 0))] * 3)
    with pytest.raises(UserError, match=r"data\.pairs\.hints\.colors is 0"):
        PaletteHints(0)


def test_colors_are_seen_in_a_strip():
    hints = PaletteHints(3)
    condition = torch.full((1, 1, 12, 30), 0.25)
    shown = hints.view(hints.given(12, 30, [Point(0, 0, (1.0, 0.0, 0.0)), Point(0, 0, (1.0, 1.0, 0.0))]), condition)[0]
    assert (shown[:, :10] == 0.25).all()
    assert shown[:, 11, [0, 9, 10, 19, 20, 29]].T.tolist() == [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2 + [[0.25] * 3] * 2
