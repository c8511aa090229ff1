"""Hints at their places."""

import numpy as np
import pytest
import torch

from project.data.pairs import Point, SpatialHints
from workbench.errors import UserError

SEED = torch.tensor([11, 12, 13, 2**62])


def plain(**options):
    """Hints that nothing is done to."""
    return SpatialHints(**{"none": 0.0, "all": 0.0, "noise": 0.0, "drop": (0.0, 0.0), **options})


def origins(colors):
    """Row and column that `ramp` has given each color."""
    return (colors * 255).round().long()[..., :2].unbind(-1)


def ramp(count=4, size=(40, 56)):
    """Images whose red says the row and whose green says the column."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return (torch.stack([rows, columns, torch.zeros_like(rows)]) / 255).expand(count, -1, -1, -1)


def test_one_exact_hint_is_the_mean_of_its_square(pictures):
    image = pictures()
    planes = SpatialHints(eval_patch=6).exact(image, SEED, 1).numpy()
    for picture, (colors, mask) in enumerate(zip(planes[:, :3], planes[:, 3], strict=True)):
        rows, columns = np.nonzero(mask)
        assert len(rows) == 36 and np.ptp(rows) == np.ptp(columns) == 5
        square = (slice(None), slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        expected = image[picture].double().numpy()[square].mean((1, 2))
        assert np.allclose(colors[square], expected[:, None, None], atol=1e-6)
        assert not colors[:, mask == 0].any()


def test_more_hints_keep_what_fewer_have_told(pictures):
    image, hints = pictures(size=(64, 96)), SpatialHints()
    before = hints.exact(image, SEED, 0)
    assert not before.any()
    for count in (1, 2, 5, 10, 20):
        planes = hints.exact(image, SEED, count)
        assert (planes[:, 3] >= before[:, 3]).all()
        covered = planes[:, 3].sum((1, 2))
        assert (covered > before[:, 3].sum((1, 2))).all() and (covered <= 36 * count).all()
        before = planes


def test_exact_hints_know_nothing_of_trainings_faults(pictures):
    faulty = SpatialHints(none=1.0, all=0.0, noise=1.0, levels=2, drop=(1.0, 1.0), misalign=9, patch=1, most=1)
    assert torch.equal(faulty(pictures(), SEED, False), plain()(pictures(), SEED, False))


def test_training_with_every_pixel_and_with_none(pictures):
    image = pictures()
    whole = SpatialHints(none=0.0, all=1.0)(image, SEED, True)
    assert torch.equal(whole[:, :3], image) and (whole[:, 3] == 1).all()
    assert not SpatialHints(none=1.0, all=0.0)(image, SEED, True).any()


def test_trainings_hints_are_where_their_colors_were(pictures):
    planes = plain(patch=1)(ramp(), SEED, True).permute(0, 2, 3, 1)
    batch, rows, columns = planes[..., 3].nonzero(as_tuple=True)
    told = origins(planes[batch, rows, columns])
    assert len(batch) > 4
    assert torch.equal(told[0], rows) and torch.equal(told[1], columns)


def test_misaligned_hints_are_near():
    torch.manual_seed(0)
    planes = plain(patch=1, misalign=3)(ramp(count=200), SEED, True).permute(0, 2, 3, 1)
    batch, rows, columns = planes[..., 3].nonzero(as_tuple=True)
    for told, found in zip(origins(planes[batch, rows, columns]), (rows, columns), strict=True):
        away = (found - told).double()
        assert away.min() == -3 and away.max() == 3
        assert away.std().item() == pytest.approx(2, rel=0.1)  # of -3 .. 3, each as often
    assert SpatialHints(misalign=1).misalign == 1
    with pytest.raises(UserError, match=r"data\.pairs\.hints\.misalign is -1"):
        SpatialHints(misalign=-1)


def test_hints_given_by_hand():
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    planes = SpatialHints(eval_patch=6).given(20, 30, [Point(10, 8, red), Point(14.7, 8, blue)])
    assert planes.shape == (1, 4, 20, 30)
    expected = np.zeros((4, 20, 30))
    expected[:, 5:11, 7:13] = np.array([1, 0, 0, 1])[:, None, None]
    expected[:, 5:11, 11:17] = np.array([0, 0, 1, 1])[:, None, None]  # the later one on top
    assert np.array_equal(planes[0].numpy(), expected)


def test_a_hint_in_the_corner_stays_whole():
    planes = SpatialHints(eval_patch=6).given(20, 30, [Point(0, 19.9, (0.5, 0.5, 0.5))])
    assert planes[0, 3].sum() == 36 and planes[0, 3, 14:, :6].all()
    assert SpatialHints(eval_patch=50).given(4, 7, [Point(6, 3, (0.5, 0.5, 0.5))])[0, 3].sum() == 16


@pytest.mark.parametrize("place", [(30, 5), (5, 20), (-0.5, 5), (5, -1), (float("nan"), 5)])
def test_hints_outside_the_picture(place):
    with pytest.raises(UserError, match=r"Hint 1 lies at x .* outside the image of 30 x 20 pixels"):
        SpatialHints().given(20, 30, [Point(*place, (0, 0, 0))])


def test_hints_are_seen_over_the_pale_condition():
    hints = SpatialHints(eval_patch=2)
    condition = torch.zeros(1, 1, 20, 30)
    shown = hints.view(hints.given(20, 30, [Point(10, 8, (1.0, 0.5, 0.0))]), condition)[0]
    assert shown[:, 0, 0].tolist() == [0.5] * 3  # black, made pale
    colored = torch.isclose(shown, torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)).all(0)
    assert colored[6:10, 8:12].all() and colored.sum() == 16  # grown by a pixel each way
    rim = (shown == 0).all(0)
    assert rim.sum() == 36 - 16 and rim[5:11, 7:13].sum() == 20


def test_a_picture_given_whole_is_shown_as_it_is(pictures):
    image = pictures()
    planes = torch.cat([image, torch.ones(4, 1, 40, 56)], 1)
    assert torch.equal(SpatialHints().view(planes, image[:, :1]), image)
