"""Augmentation: what moves, that pairs stay together, and that everything follows from the draw's number."""

import pickle

import numpy as np
import pytest

from project.data.augment import Augment, Augmenter, center_crop
from workbench.errors import UserError

OFF = {"hflip": False, "vflip": False, "quarter_turns": False}


def index_picture(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: row, column and a checksum."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, (3 * rows + 5 * columns) % 256], axis=-1).astype(np.uint8)


def test_crops_are_unchanged_parts_when_all_is_off():
    picture = index_picture(50, 70)
    cut = Augmenter(Augment(**OFF), 24)
    corners = set()
    for seed in range(300):
        crop, _ = cut(picture, None, seed)
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        corners.add((top, left))
        assert np.array_equal(crop, picture[top : top + 24, left : left + 24])
    tops, lefts = zip(*corners, strict=True)
    assert (min(tops), max(tops)) == (0, 26)  # every place is reached, the last row and column included
    assert min(lefts) == 0 and max(lefts) >= 45


def test_a_picture_just_as_large_as_the_crop():
    picture = index_picture(24, 24)
    assert np.array_equal(Augmenter(Augment(**OFF), 24)(picture, None, 5)[0], picture)


def test_flips_and_quarter_turns_give_all_eight_symmetries_equally_often():
    picture = index_picture(16, 16)
    expected = {np.rot90(side, turns).tobytes() for side in (picture, picture[:, ::-1]) for turns in range(4)}
    augment = Augmenter(Augment(), 16)
    seen = [augment(picture, None, seed)[0].tobytes() for seed in range(800)]
    counts = [seen.count(each) for each in expected]
    assert set(seen) == expected
    assert min(counts) > 60 and max(counts) < 140  # 100 expected, 9.4 standard deviation


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hflip": 1.0}, lambda picture: picture[:, ::-1]),
        ({"vflip": 1.0}, lambda picture: picture[::-1]),
        ({}, lambda picture: picture),
    ],
)
def test_each_flip_alone(change, expected):
    picture = index_picture(20, 31)
    result, _ = Augmenter(Augment(**{**OFF, **change}), None)(picture, None, 3)
    assert np.array_equal(result, expected(picture))


ALL = Augment(rotate_degrees=20, shift=0.1, shear_degrees=8)


@pytest.mark.parametrize("augment", [Augment(), ALL])
def test_partners_are_moved_to_the_pixel(augment):
    picture = index_picture(90, 120)
    moved = Augmenter(augment, 32)
    for seed in range(40):
        image, target = moved(picture, picture.copy(), seed)
        assert image.shape == target.shape == (32, 32, 3)
        assert np.array_equal(image, target)


def test_colors_change_the_picture_alone():
    picture = index_picture(40, 50)
    image, target = Augmenter(Augment(**OFF, brightness=0.5, contrast=0.5), 32)(picture, picture.copy(), 1)
    top, left = int(target[0, 0, 0]), int(target[0, 0, 1])
    assert np.array_equal(target, picture[top : top + 32, left : left + 32])
    assert not np.array_equal(image, target)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", [24, None])
def test_everything_on_keeps_the_shape(channels, crop):
    picture = index_picture(60, 60)[..., :channels]
    augment = Augment(rotate_degrees=180, shift=0.2, shear_degrees=15, brightness=0.2, contrast=0.2)
    image, _ = Augmenter(augment, crop)(picture, None, 1)
    assert image.shape == (crop or 60, crop or 60, channels)
    assert image.dtype == np.uint8


@pytest.mark.parametrize(
    "change",
    [
        {"rotate_degrees": 45},
        {"rotate_degrees": 10},
        {"shear_degrees": 20},
        {"shift": 0.25},
        {"rotate_degrees": 30, "shift": 0.1, "shear_degrees": 10},
    ],
)
def test_the_margin_keeps_the_border_out(change):
    """A plane stays a plane under every move; mirrored borders would put a kink in it."""
    side = 32
    rows, columns = np.mgrid[:200, :200]
    plane = (rows * 0.6 + columns * 0.6).round().astype(np.uint8)[..., None]
    moved = Augmenter(Augment(**OFF, **change), side)
    places = np.stack([np.ones(side * side), *(axis.ravel() for axis in np.mgrid[:side, :side])], axis=1)
    for seed in range(40):
        crop = moved(plane, None, seed)[0].astype(np.float64).ravel()
        fitted = places @ np.linalg.lstsq(places, crop, rcond=None)[0]
        assert np.abs(fitted - crop).max() < 2.5


def test_rotation_and_shift_are_as_large_as_asked():
    rows, columns = np.mgrid[:200, :200]
    planes = np.stack([rows, columns, rows], axis=-1).astype(np.uint8)
    turned = Augmenter(Augment(**OFF, rotate_degrees=30), 32)
    angles = []
    for seed in range(200):
        crop = turned(planes, None, seed)[0].astype(np.float64)
        slope_along, slope_across = crop[16, 28, 1] - crop[16, 4, 1], crop[16, 28, 0] - crop[16, 4, 0]
        angles.append(np.degrees(np.arctan2(slope_across, slope_along)))
    assert -32 < min(angles) < -26 and 26 < max(angles) < 32

    point = np.zeros((32, 32, 1), np.uint8)
    point[16, 16] = 255
    moved = Augmenter(Augment(**OFF, shift=0.25), None)
    places = [np.argwhere(moved(point, None, seed)[0][..., 0] > 60).mean(axis=0) - 16 for seed in range(100)]
    assert 6 < np.abs(places).max() <= 8.5


def test_everything_follows_from_the_number():
    picture = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    augment = Augment(rotate_degrees=20, shift=0.1, shear_degrees=8, brightness=0.2, contrast=0.2)
    first, second = Augmenter(augment, 32), pickle.loads(pickle.dumps(Augmenter(augment, 32)))
    results = [first(picture, None, seed)[0] for seed in range(20)]
    for seed in reversed(range(20)):
        assert np.array_equal(second(picture, None, seed)[0], results[seed])
    assert len({result.tobytes() for result in results}) == 20
    assert not np.array_equal(first(picture, None, 2**62 + 3)[0], results[3])


def test_the_stored_picture_is_left_alone():
    picture = index_picture(40, 40)
    picture.flags.writeable = False
    before = picture.copy()
    augment = Augment(rotate_degrees=20, brightness=0.3)
    for seed in range(20):
        Augmenter(augment, None)(picture, None, seed)
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("name", ["hflip", "rotate_degrees", "shift", "shear_degrees", "brightness", "contrast"])
def test_impossible_values(name):
    for value in (-0.1, 181):
        with pytest.raises(UserError, match=f"data.augment.{name} is {value}"):
            Augment(**{name: value})


def test_center_crop_takes_the_middle_and_no_more_than_there_is():
    picture = index_picture(11, 6)
    assert np.array_equal(center_crop(picture, 5), picture[3:8, 0:5])
    assert np.array_equal(center_crop(picture, 8), picture[1:9])
