"""Equal to NumPy's over all pixels laid end to end."""

import numpy as np
import pytest
import torch
from PIL import Image

from project.data import statistics as statistics_module
from project.data.cache import Cache
from project.data.folder import Folder
from project.data.images import decode, resize_shorter
from project.data.index import index_images
from project.data.pixels import PixelStore
from project.data.statistics import measure

SIZES = [(9, 7), (5, 18), (16, 6), (11, 4), (30, 20)]  # unequal, so that a mean of means would differ


def fill(folder, seed):
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number, (width, height) in enumerate(SIZES):
        array = random.normal((40 + 30 * number, 120, 200), (10, 40, 25), (height, width, 3)).clip(0, 255)
        Image.fromarray(array.astype(np.uint8)).save(folder / f"{number}.png")


@pytest.fixture
def records(tmp_path, cache):
    fill(tmp_path / "a", 1)
    fill(tmp_path / "b", 2)
    return index_images(Folder(str(tmp_path / "a"), str(tmp_path / "b")).find(), cache=cache)


def check(statistics, paths, channels, resize=None):
    arrays = [resize_shorter(decode(path, channels), resize).reshape(-1, channels) for path in paths]
    pixels = np.concatenate(arrays).astype(np.float64) / 255
    assert statistics.mean.dtype == statistics.std.dtype == torch.float32
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=0), atol=1e-6, rtol=0)
    np.testing.assert_allclose(statistics.std, pixels.std(axis=0), atol=1e-6, rtol=0)
    assert statistics.pixels == len(pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 3])
@pytest.mark.parametrize("workers", [0, 3])
def test_equals_numpy_on_both_sides(records, cache, channels, resize, workers):
    store = PixelStore(records, channels=channels, resize=resize)
    own = measure(store, records, cache=cache, workers=workers)
    other = measure(store, records, cache=cache, side="target", workers=workers)
    check(own, [r.path for r in records], channels, resize)
    check(other, [r.target_path for r in records], channels, resize)


def test_no_digit_depends_on_order_or_workers(records, tmp_path):
    one = measure(PixelStore(records, channels=3), records, cache=Cache(tmp_path / "1"))
    order = records[::-1]
    other = measure(PixelStore(order, channels=3), order, cache=Cache(tmp_path / "2"), workers=3)
    assert torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)


def test_a_constant_channel_has_no_deviation(tmp_path, cache):
    Image.new("RGB", (5, 7), (255, 51, 0)).save(tmp_path / "a.png")
    flat = index_images(Folder(str(tmp_path)).find(), cache=cache)
    statistics = measure(PixelStore(flat, channels=3), flat, cache=cache)
    torch.testing.assert_close(statistics.mean, torch.tensor([1.0, 0.2, 0.0]))
    assert statistics.std.tolist() == [0, 0, 0]


def test_cached_until_an_image_the_set_or_the_size_changes(records, cache, monkeypatch):
    counted, real = [], statistics_module._histogram
    monkeypatch.setattr(statistics_module, "_histogram", lambda pixels: counted.append(1) or real(pixels))

    def fresh(group, **options):
        counted.clear()
        measure(PixelStore(group, **{"channels": 3, **options}), group, cache=cache)
        return len(counted)

    assert fresh(records) == 5
    assert fresh(records) == 0
    assert fresh(records[1:]) == 4
    assert fresh(records, channels=1) == 5
    assert fresh(records, resize=3) == 5
    assert fresh(records) == 0
    for file in cache.folder.glob("statistics-*"):
        file.write_text("{}")
    assert fresh(records) == 5
