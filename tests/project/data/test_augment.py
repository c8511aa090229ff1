"""Augmentation: what moves, that pairs stay together, and that everything follows from the draw's seed."""

import pickle
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest

from project.data.augment import Augment, Augmenter
from workbench.errors import UserError

OFF = {"hflip": False, "vflip": False, "quarter_turns": False}
MOVE = {"rotate_degrees": 20, "shift": 0.1, "shear_degrees": 8}


def draw(augmenter, image, target, seed):
    """What `ImageDataset` does with one image."""

    def read(window):
        part = ... if window is None else window
        return image[part], None if target is None else target[part]

    return augmenter.draw(read, *image.shape[:2], seed)


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: row, column and a checksum."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, (3 * rows + 5 * columns) % 256], axis=-1).astype(np.uint8)


def test_crops_are_unchanged_parts_when_all_is_off():
    image = coordinates(50, 70)
    cut = Augmenter(Augment(**OFF), 24)
    corners = set()
    for seed in range(300):
        crop, _ = draw(cut, image, None, seed)
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        corners.add((top, left))
        assert np.array_equal(crop, image[top : top + 24, left : left + 24])
    tops, lefts = zip(*corners, strict=True)
    assert (min(tops), max(tops)) == (0, 26)  # every place is reached, the last row and column included
    assert min(lefts) == 0 and max(lefts) >= 45
    assert np.array_equal(draw(cut, image[:24, :24], None, 5)[0], image[:24, :24])


def test_flips_and_quarter_turns_give_all_eight_symmetries_equally_often():
    image = coordinates(16, 16)
    expected = {np.rot90(side, turns).tobytes() for side in (image, image[:, ::-1]) for turns in range(4)}
    augment = Augmenter(Augment(), 16)
    seen = [draw(augment, image, None, seed)[0].tobytes() for seed in range(800)]
    counts = [seen.count(each) for each in expected]
    assert set(seen) == expected
    assert min(counts) > 60 and max(counts) < 140  # 100 expected, 9.4 standard deviation


@pytest.mark.parametrize("augment", [Augment(), Augment(**MOVE)])
def test_targets_are_moved_to_the_pixel(augment):
    image = coordinates(90, 120)
    moved = Augmenter(augment, 32)
    for seed in range(40):
        result, target = draw(moved, image, image.copy(), seed)
        assert result.shape == target.shape == (32, 32, 3)
        assert np.array_equal(result, target)


@pytest.mark.parametrize("crop", [32, None])
def test_masks_move_with_the_image_by_nearest_neighbor_and_keep_their_values(crop):
    """The moved coordinates say which pixel of the mask each new pixel must be, but for rounding at the stripes."""
    image = coordinates(90, 120)
    rows, columns = np.mgrid[:90, :120]
    mask = ((rows // 15 + columns // 15) % 5 * 50).astype(np.uint8)[..., None]
    moved = Augmenter(Augment(**MOVE), crop, masks=True)
    compared = 0
    for seed in range(30):
        result, target = draw(moved, image, mask, seed)
        assert target.shape == (*result.shape[:2], 1) and target.dtype == np.uint8
        assert set(np.unique(target)) <= {0, 50, 100, 150, 200}
        row, column = (result[..., channel].astype(int) for channel in range(2))
        inside = ((row % 15 > 1) & (row % 15 < 13)) & ((column % 15 > 1) & (column % 15 < 13))
        if crop is None:  # the mirrored border is interpolated otherwise
            inside &= (row > 1) & (row < 88) & (column > 1) & (column < 118)
        assert np.array_equal(target[..., 0][inside], mask[row, column, 0][inside])
        compared += inside.mean()
    assert compared / 30 > 0.4


def test_colors_change_the_input_alone():
    image = coordinates(40, 50)
    for masks in (False, True):
        colors = Augmenter(Augment(**OFF, brightness=0.5, contrast=0.5), 32, masks)
        result, target = draw(colors, image, image[..., : 1 if masks else 3].copy(), 1)
        top, left = int(target[0, 0, 0]), 0 if masks else int(target[0, 0, 1])
        if not masks:
            assert np.array_equal(target, image[top : top + 32, left : left + 32])
        assert np.array_equal(target[..., 0], np.arange(top, top + 32)[:, None].repeat(32, 1))
        assert not np.array_equal(result[..., :1], target[..., :1])


@pytest.mark.parametrize(
    "change", [{"rotate_degrees": 45}, {"rotate_degrees": 10}, {"shear_degrees": 20}, {"shift": 0.25}, MOVE]
)
def test_the_margin_keeps_the_border_out(change):
    """A plane stays a plane under every move; mirrored borders would put a kink in it."""
    side = 32
    rows, columns = np.mgrid[:200, :200]
    plane = (rows * 0.6 + columns * 0.6).round().astype(np.uint8)[..., None]
    moved = Augmenter(Augment(**OFF, **change), side)
    places = np.stack([np.ones(side * side), *(axis.ravel() for axis in np.mgrid[:side, :side])], axis=1)
    for seed in range(40):
        crop = draw(moved, plane, None, seed)[0].astype(np.float64).ravel()
        fitted = places @ np.linalg.lstsq(places, crop, rcond=None)[0]
        assert np.abs(fitted - crop).max() < 2.5


def test_rotation_and_shift_are_as_large_as_asked():
    planes = coordinates(200, 200)
    rotated = Augmenter(Augment(**OFF, rotate_degrees=30), 32)
    angles = []
    for seed in range(200):
        crop = draw(rotated, planes, None, seed)[0].astype(np.float64)
        slope_along, slope_across = crop[16, 28, 1] - crop[16, 4, 1], crop[16, 28, 0] - crop[16, 4, 0]
        angles.append(np.degrees(np.arctan2(slope_across, slope_along)))
    assert -32 < min(angles) < -26 and 26 < max(angles) < 32

    point = np.zeros((32, 32, 1), np.uint8)
    point[16, 16] = 255
    moved = Augmenter(Augment(**OFF, shift=0.25), None)
    places = [np.argwhere(draw(moved, point, None, seed)[0][..., 0] > 60).mean(axis=0) - 16 for seed in range(100)]
    assert 6 < np.abs(places).max() <= 8.5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", [32, None])
def test_everything_follows_from_the_seed_and_the_stored_image_stays(channels, crop):
    image = np.random.default_rng(0).integers(0, 256, (60, 60, channels), np.uint8)
    image.flags.writeable = False
    augment = Augment(**MOVE, brightness=0.2, contrast=0.2)
    first, second = Augmenter(augment, crop), pickle.loads(pickle.dumps(Augmenter(augment, crop)))
    results = [draw(first, image, None, seed)[0] for seed in range(20)]
    assert {(result.shape, result.dtype) for result in results} == {((crop or 60, crop or 60, channels), image.dtype)}
    for seed in reversed(range(20)):
        assert np.array_equal(draw(second, image, None, seed)[0], results[seed])
    assert len({result.tobytes() for result in results}) == 20
    assert not np.array_equal(draw(first, image, None, 2**62 + 3)[0], results[3])


@pytest.mark.parametrize(("name", "value"), [("hflip", -0.1), ("rotate_degrees", 181), ("shift", 0.6)])
def test_impossible_values(name, value):
    with pytest.raises(UserError, match=f"data.augment.{name} is {value}"):
        Augment(**{name: value})


@pytest.mark.parametrize(
    "installed", [{}, {"albumentations": "2.0.9"}, {"albumentations": "2.0.8", "albumentationsx": "2.1.0"}]
)
def test_another_albumentations_is_refused(monkeypatch, installed):
    found = lambda name: [SimpleNamespace(version=installed[name])] if name in installed else []  # noqa: E731
    monkeypatch.setattr(metadata, "distributions", found)
    Augmenter(Augment(), 16)  # flips need none
    with pytest.raises(UserError, match=r"2\.0\.8(.|\n)*AGPL(.|\n)*pip install albumentations==2\.0\.8"):
        Augmenter(Augment(shift=0.1), 16)
