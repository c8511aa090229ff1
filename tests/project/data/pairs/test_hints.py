"""Hints: how many, where from and how exact; squares against plain loops; spatial hints and palettes."""

import itertools

import numpy as np
import pytest
import torch

from project.data.pairs import Hints, PaletteHints, Point, SpatialHints
from project.data.pairs.hints import MAX_SIDE, Patches, mean_colors, place, render
from workbench.errors import UserError

SEED = torch.tensor([11, 12, 13, 2**62])
ALL = [Hints(), SpatialHints(), SpatialHints(position="gaussian"), PaletteHints(), PaletteHints(3)]
SIZE = (23, 37)


class Plain(SpatialHints):
    """Hints that nothing degrades, but for what a test sets."""

    noise, patch, drop = 0.0, (1, 1), (0.0, 0.0)


def plain(most=100, drop=(0.0, 0.0), noise=0.0, **options):
    hints = Plain(**{"none": 0.0, "all": 0.0, **options})
    hints.most, hints.drop, hints.noise = most, drop, noise
    return hints


@pytest.mark.parametrize("hints", ALL)
@pytest.mark.parametrize("size", [(40, 56), (5, 3)])
def test_planes_have_the_images_sides_and_range(images, hints, size):
    image = images(size=size)
    for planes in (hints(image, SEED, True), hints(image, SEED, False), hints.deterministic(image, SEED, 30)):
        assert planes.shape == (4, hints.channels, *size) and planes.dtype == torch.float32
        assert not planes.requires_grad
        assert ((planes >= 0) & (planes <= 1)).all()
    shown = hints.preview(hints.deterministic(image, SEED, 3), image[:, :1])
    assert shown.shape == image.shape and ((shown >= 0) & (shown <= 1)).all()
    planes = hints.from_points(*size, [])
    assert planes.shape == (1, hints.channels, *size) and not planes.any()


# How many, and how exact


def counts(hints, batch=4000):
    patches, _, everything = hints.sample_colors(torch.zeros(batch, 3, 4, 5))
    return patches.present.sum(dim=1), everything


def mean(values):
    return values.double().mean().item()


def test_counts_are_geometric():
    found, _ = counts(plain(most=200))
    assert found.min() == 1
    assert mean(found) == pytest.approx(8, rel=0.05)
    for number in (1, 2, 5):
        assert mean(found == number) == pytest.approx(0.125 * 0.875 ** (number - 1), abs=0.02)
    assert mean(found > 16) == pytest.approx(0.875**16, abs=0.02)
    assert counts(plain(count_p=1.0), 100)[0].unique().tolist() == [1]
    found, _ = counts(plain(most=3))
    assert found.max() == 3 and mean(found == 3) == pytest.approx(0.875**2, abs=0.03)


def test_some_images_lose_most_of_their_hints():
    found, _ = counts(plain(count_p=1e-6, drop=(0.25, 0.8)))  # without it all had 100
    whole = found == 100
    assert mean(whole) == pytest.approx(0.75, abs=0.03)
    assert mean(found[~whole]) == pytest.approx(20, abs=0.5)
    found, everything = counts(plain(all=0.5, drop=(1.0, 1.0)))
    assert (found[everything] == 100).all() and (found[~everything] == 0).all()


def test_noise_of_colors():
    _, colors, _ = plain(noise=0.05, count_p=1e-6).sample_colors(torch.full((200, 3, 4, 5), 0.5))
    assert colors.std().item() == pytest.approx(0.05, rel=0.02)
    assert colors.mean().item() == pytest.approx(0.5, abs=0.002)
    assert torch.corrcoef(colors.flatten(0, 1).T).fill_diagonal_(0).abs().max() < 0.03


def test_evaluations_hints_are_exact_and_the_first_of_more(images):
    image, seed = images(size=(200, 300)), torch.tensor([3, 2**62, 5, 2**63 - 1])
    faulty = plain(eval_patch=1, none=1.0, noise=1.0, drop=(1.0, 1.0), most=1)  # in training
    planes = [faulty.deterministic(image, seed, count) for count in (0, 1, 10, 128, 129, 300)]
    assert not planes[0].any()
    for few, more in itertools.pairwise(planes):
        held = few[:, 3:].bool().expand_as(few)
        assert torch.equal(few[held], more[held])
        assert (few[:, 3].sum((1, 2)) < more[:, 3].sum((1, 2))).all()
    held = planes[-1][:, 3:].bool()
    torch.testing.assert_close(planes[-1][:, :3], image * held, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"none": 1.2}, "none is 1.2: it must be between 0 and 1"),
        ({"none": 0.7, "all": 0.4}, "all is 0.4: it must be 0 or more, and at most 1 together"),
        ({"count_p": 0}, "count_p is 0: it must be above 0"),
        ({"eval_count": -1}, "eval_count is -1: it must be 0 or more"),
        ({"eval_patch": 129}, "eval_patch is 129: it must be from 1 to 128 pixels"),
    ],
)
def test_impossible_arguments(options, message):
    with pytest.raises(UserError) as caught:
        SpatialHints(**options)
    assert str(caught.value).startswith("data.pairs.hints.") and message in str(caught.value)


# Squares


def squares():
    """Thirty squares in each of three images that overlap, about a third of them absent."""
    generator = np.random.default_rng(0)
    side = generator.integers(1, 10, (3, 30))
    corners = [generator.integers(0, length - side + 1) for length in SIZE]
    present = generator.random(side.shape) < 0.7
    return Patches(*map(torch.from_numpy, (*corners, side, present)), 9)


def loop(patches):
    """(image, number, rows, columns) of every square that is present."""
    for image, number in patches.present.nonzero().tolist():
        top, left, side = (int(part[image, number]) for part in patches[:3])
        yield image, number, slice(top, top + side), slice(left, left + side)


def test_the_largest_square_of_white_is_white():
    side = torch.tensor([[MAX_SIDE]])
    patches = Patches(torch.zeros_like(side), torch.zeros_like(side), side, side > 0, MAX_SIDE)
    assert mean_colors(torch.ones(1, 3, MAX_SIDE, MAX_SIDE + 1), patches).tolist() == [[[1.0] * 3]]
    dark = torch.full((1, 3, MAX_SIDE, MAX_SIDE + 1), 0.6 / 65535)  # between two of its levels: to the nearer one
    assert torch.allclose(mean_colors(dark, patches) * 65535, torch.ones(1, 1, 3))


def test_a_squares_color_is_its_mean_and_the_later_lies_on_top():
    patches, colors = squares(), torch.rand(3, 30, 3)
    expected = np.zeros((3, 4, *SIZE), np.float32)
    covered, image = 0, torch.rand(3, 3, *SIZE)
    means = mean_colors(image, patches)
    for one, number, rows, columns in loop(patches):
        mean = image[one, :, rows, columns].double().mean((1, 2))
        torch.testing.assert_close(means[one, number].double(), mean, rtol=0, atol=1e-5)
        covered += int(expected[one, 3, rows, columns].sum())
        expected[one, :3, rows, columns] = colors[one, number].numpy()[:, None, None]
        expected[one, 3, rows, columns] = 1
    assert covered > 100  # there was something to decide
    assert np.array_equal(render(colors, patches, SIZE).numpy(), expected)


@pytest.mark.parametrize("position", ["uniform", "gaussian"])
@pytest.mark.parametrize("side", [1, 6, 23, 40])
def test_squares_lie_wholly_inside(position, side):
    sides = torch.full((2, 300), side)
    chance = torch.rand(2, 300, 2)
    chance[0, 0] = 0.0
    chance[0, 1] = 1 - 2**-24
    patches = place(chance, sides, sides > 0, side, SIZE, position)
    assert torch.equal(patches.side, sides.clamp(max=23))  # a square that is too large takes the shorter side
    for start, length in zip(patches[:2], SIZE, strict=True):
        assert start.min() == 0 and start.max() == length - min(side, 23)
    assert mean_colors(torch.rand(2, 3, *SIZE), patches).isfinite().all()


def test_squares_lie_anywhere_as_often_or_around_the_center():
    sides = torch.full((2, 10000), 6)
    patches = place(torch.rand(2, 10000, 2), sides, sides > 0, 6, SIZE, "uniform")
    for start, length in zip(patches[:2], SIZE, strict=True):
        frequency = torch.bincount(start.flatten(), minlength=length - 5).double()
        expected = 20000 / (length - 5)
        assert len(frequency) == length - 5
        assert (frequency - expected).abs().max() < 5 * expected**0.5
    # Gaussian: against NumPy's own normal numbers, cut off at the edges as these are.
    sides, size = torch.full((2, 10000), 1), (400, 600)
    patches = place(torch.rand(2, 10000, 2), sides, sides > 0, 1, size, "gaussian")
    for start, length in zip(patches[:2], size, strict=True):
        normal = np.random.default_rng(5).normal(length / 2, length / 4, 200_000).clip(0, length - 1)
        assert start.double().mean().item() == pytest.approx(normal.mean(), abs=0.01 * length)
        assert start.double().std().item() == pytest.approx(normal.std(), rel=0.02)


# Spatial hints


def test_one_exact_hint_is_the_mean_of_its_square(images):
    image = images()
    planes = SpatialHints(eval_patch=6).deterministic(image, SEED, 1).numpy()
    for one, (colors, mask) in enumerate(zip(planes[:, :3], planes[:, 3], strict=True)):
        rows, columns = np.nonzero(mask)
        assert len(rows) == 36 and np.ptp(rows) == np.ptp(columns) == 5
        square = (slice(None), slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        expected = image[one].double().numpy()[square].mean((1, 2))
        assert np.allclose(colors[square], expected[:, None, None], atol=1e-6)
        assert not colors[:, mask == 0].any()


def test_training_with_every_pixel_with_none_and_with_some(images):
    image = images()
    whole = SpatialHints(none=0.0, all=1.0)(image, SEED, True)
    assert torch.equal(whole[:, :3], image) and (whole[:, 3] == 1).all()
    assert not SpatialHints(none=1.0, all=0.0)(image, SEED, True).any()
    planes = plain()(image, SEED, True)  # of one pixel each: the image's own
    held = planes[:, 3:].bool().expand(-1, 3, -1, -1)
    assert 0 < held.float().mean() < 0.5
    torch.testing.assert_close(planes[:, :3], image * held, rtol=0, atol=1e-6)


def test_hints_given_by_hand():
    red, blue, gray = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.5)
    planes = SpatialHints(eval_patch=6).from_points(20, 30, [Point(10, 8, red), Point(14.7, 8, blue)])
    assert planes.shape == (1, 4, 20, 30)
    expected = np.zeros((4, 20, 30))
    expected[:, 5:11, 7:13] = np.array([1, 0, 0, 1])[:, None, None]
    expected[:, 5:11, 11:17] = np.array([0, 0, 1, 1])[:, None, None]  # the later one on top
    assert np.array_equal(planes[0].numpy(), expected)
    planes = SpatialHints(eval_patch=6).from_points(20, 30, [Point(0, 19.9, gray)])
    assert planes[0, 3].sum() == 36 and planes[0, 3, 14:, :6].all(), "a hint in the corner stays whole"
    assert SpatialHints(eval_patch=50).from_points(4, 7, [Point(6, 3, gray)])[0, 3].sum() == 16


def test_hints_are_shown_over_the_pale_condition(images):
    hints, orange = SpatialHints(eval_patch=2), torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)
    planes = hints.from_points(20, 30, [Point(10, 8, (1.0, 0.5, 0.0))])
    shown = hints.preview(planes, torch.zeros(1, 1, 20, 30))[0]
    expected = torch.full((3, 20, 30), 0.5)  # black, made pale
    expected[:, 7:9, 9:11] = orange
    assert torch.equal(shown, expected)
    planes = torch.cat([images(), torch.ones(4, 1, 40, 56)], 1)
    assert torch.equal(hints.preview(planes, images()[:, :1]), images()), "an image given whole is shown as it is"


# Palettes


def slots(planes):
    """(B, slots, 4) of planes that are found to be constant."""
    assert torch.equal(planes.amin((2, 3)), planes.amax((2, 3)))
    return planes[:, :, 0, 0].unflatten(1, (-1, 4))


def test_a_palettes_colors_are_those_of_spatial_hints(images):
    planes = SpatialHints().deterministic(images(), SEED, 1)
    expected = planes[:, :3].flatten(2).amax(2)  # the one square's color; all else is 0
    found = slots(PaletteHints(5).deterministic(images(), SEED, 1))
    assert found.shape == (4, 5, 4)
    assert torch.equal(found[:, 0, :3], expected) and (found[:, 0, 3] == 1).all()
    assert not found[:, 1:].any()


def test_dark_colors_come_first_and_fewer_are_among_more(images):
    hints = PaletteHints(8)
    few, many = (slots(hints.deterministic(images(), SEED, count)).numpy() for count in (3, 6))
    assert (many[:, :6, 3] == 1).all() and not many[:, 6:].any()
    light = many[:, :6, :3] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(light, axis=1) >= 0).all() and (np.ptp(light, axis=1) > 0).all()
    for one in range(4):
        assert {tuple(color) for color in few[one, :3].tolist()} < {tuple(color) for color in many[one].tolist()}
    assert torch.equal(hints.deterministic(images(), SEED, 100), hints.deterministic(images(), SEED, 8))


def test_a_palettes_counts_and_shares():
    hints = PaletteHints(20, none=0.3, all=0.1, count_p=0.5)
    hints.noise, hints.drop = 0.0, (0.0, 0.0)
    found = slots(hints(torch.ones(4000, 3, 2, 3), None, True))
    count = found[..., 3].sum(1)
    assert torch.equal(found[..., 3:].expand(-1, -1, 3), found[..., :3])  # white where there is one, or nothing
    assert mean(count == 0) == pytest.approx(0.3, abs=0.03)
    assert mean(count == 20) == pytest.approx(0.1, abs=0.02)
    assert mean(count[(count > 0) & (count < 20)]) == pytest.approx(2, rel=0.05)


def test_a_palette_given_by_hand_is_shown_as_a_strip():
    red, white, green, yellow = (1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.5, 0.0), (1.0, 1.0, 0.0)
    found = slots(PaletteHints(4).from_points(5, 7, [Point(99, -3, red), Point(0, 0, white), Point(0, 0, green)]))
    assert found[0].tolist() == [[0, 0.5, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    hints = PaletteHints(3)
    planes = hints.from_points(12, 30, [Point(0, 0, red), Point(0, 0, yellow)])
    shown = hints.preview(planes, torch.full((1, 1, 12, 30), 0.25))[0]
    assert (shown[:, :10] == 0.25).all()
    assert shown[:, 11, [0, 9, 10, 19, 20, 29]].T.tolist() == [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2 + [[0.25] * 3] * 2
