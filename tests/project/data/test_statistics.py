"""Equal to NumPy's over all pixels laid end to end."""

import numpy as np
import pytest
import torch
from PIL import Image

from project.data import statistics as statistics_module
from project.data.cache import Cache
from project.data.folder import Folder
from project.data.images import decode, resize_shorter
from project.data.index import index_pictures
from project.data.pixels import PixelStore
from project.data.statistics import measure, spread

SIZES = [(9, 7), (5, 18), (16, 6), (11, 4), (30, 20)]  # unequal, so that a mean of means would differ


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def fill(folder, seed):
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number, (width, height) in enumerate(SIZES):
        array = random.normal((40 + 30 * number, 120, 200), (10, 40, 25), (height, width, 3)).clip(0, 255)
        Image.fromarray(array.astype(np.uint8)).save(folder / f"{number}.png")


@pytest.fixture
def pictures(tmp_path, cache):
    fill(tmp_path / "a", 1)
    fill(tmp_path / "b", 2)
    return index_pictures(Folder(str(tmp_path / "a"), str(tmp_path / "b")).find(), cache=cache)


def numpy_answer(paths, channels, resize=None):
    arrays = [resize_shorter(decode(path, channels), resize).reshape(-1, channels) for path in paths]
    pixels = np.concatenate(arrays).astype(np.float64) / 255
    return pixels.mean(axis=0), pixels.std(axis=0), len(pixels)


def check(statistics, expected):
    mean, std, pixels = expected
    assert statistics.mean.dtype == statistics.std.dtype == torch.float32
    np.testing.assert_allclose(statistics.mean, mean, atol=1e-6, rtol=0)
    np.testing.assert_allclose(statistics.std, std, atol=1e-6, rtol=0)
    assert statistics.pixels == pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 3])
@pytest.mark.parametrize("workers", [0, 3])
def test_equals_numpy_on_both_sides(pictures, cache, channels, resize, workers):
    store = PixelStore(pictures, channels=channels, resize=resize)
    own = measure(store, pictures, cache=cache, workers=workers)
    other = measure(store, pictures, cache=cache, side="target", workers=workers)
    check(own, numpy_answer([p.path for p in pictures], channels, resize))
    check(other, numpy_answer([p.target_path for p in pictures], channels, resize))


def test_no_digit_depends_on_order_or_workers(pictures, tmp_path):
    answers = []
    for number, (order, workers) in enumerate([(pictures, 0), (pictures[::-1], 3)]):
        answers.append(
            measure(PixelStore(order, channels=3), order, cache=Cache(tmp_path / str(number)), workers=workers)
        )
    assert torch.equal(answers[0].mean, answers[1].mean)
    assert torch.equal(answers[0].std, answers[1].std)


def test_a_constant_channel_has_no_deviation(tmp_path, cache):
    Image.new("RGB", (5, 7), (255, 51, 0)).save(tmp_path / "a.png")
    flat = index_pictures(Folder(str(tmp_path)).find(), cache=cache)
    statistics = measure(PixelStore(flat, channels=3), flat, cache=cache)
    torch.testing.assert_close(statistics.mean, torch.tensor([1.0, 0.2, 0.0]))
    assert statistics.std.tolist() == [0, 0, 0]


def test_a_limit_takes_so_many_pictures_spread_over_all(pictures, cache):
    statistics = measure(PixelStore(pictures, channels=3), pictures, cache=cache, limit=2)
    check(statistics, numpy_answer([pictures[1].path, pictures[3].path], 3))


@pytest.mark.parametrize(("total", "limit"), [(10, 3), (10, 10), (10, 99), (7, 1), (1000, 999), (5, None)])
def test_spread(total, limit):
    positions = spread(total, limit)
    assert len(positions) == len(set(positions)) == min(total, limit or total)
    assert positions == sorted(positions)
    gaps = np.diff([-1, *positions, total])
    assert gaps.max() <= 2 * total / len(positions)
    assert positions[-1] < total


def test_cached_until_a_picture_the_set_or_the_size_changes(pictures, cache, monkeypatch):
    counted = []
    real = statistics_module._histogram
    monkeypatch.setattr(statistics_module, "_histogram", lambda pixels: counted.append(1) or real(pixels))

    def fresh(group, **options):
        counted.clear()
        measure(PixelStore(group, **{"channels": 3, **options}), group, cache=cache)
        return len(counted)

    assert fresh(pictures) == 5
    assert fresh(pictures) == 0
    assert fresh(pictures[1:]) == 4
    assert fresh(pictures, channels=1) == 5
    assert fresh(pictures, resize=3) == 5
    assert fresh(pictures) == 0
    for file in cache.folder.glob("statistics-*"):
        file.write_text("{")
    with pytest.warns(UserWarning, match="damaged"):
        assert fresh(pictures) == 5
    for file in cache.folder.glob("statistics-*"):
        file.write_text("{}")
    assert fresh(pictures) == 5
