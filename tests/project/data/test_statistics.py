"""Equal to NumPy's over all pixels laid end to end."""

import numpy as np
import pytest
import torch

from project.data import statistics as statistics_module
from project.data.cache import Cache
from project.data.folder import find_images
from project.data.images import decode, resize_shorter
from project.data.index import index_images
from project.data.pixels import PixelStore
from project.data.statistics import measure


@pytest.fixture
def records(folders, cache):
    return index_images(find_images(*folders[:2]), cache=cache)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 3])
def test_equals_numpy_on_both_sides_whatever_the_order(records, cache, tmp_path, channels, resize):
    store = PixelStore(records, channels=channels, resize=resize)
    backwards = PixelStore(records[::-1], channels=channels, resize=resize)
    for side, paths in {"input": [r.path for r in records], "target": [r.target_path for r in records]}.items():
        found = measure(store, cache, side=side)
        arrays = [resize_shorter(decode(path, channels), resize).reshape(-1, channels) for path in paths]
        pixels = np.concatenate(arrays).astype(np.float64) / 255
        assert found.mean.dtype == found.std.dtype == torch.float32
        np.testing.assert_allclose(found.mean, pixels.mean(axis=0), atol=1e-6, rtol=0)
        np.testing.assert_allclose(found.std, pixels.std(axis=0), atol=1e-6, rtol=0)
        assert found.pixels == len(pixels)
        other = measure(backwards, Cache(tmp_path / "2"), side=side)
        assert torch.equal(found.mean, other.mean) and torch.equal(found.std, other.std)


def test_cached_until_the_set_the_channels_or_the_size_change(records, cache, monkeypatch):
    counted, real = [], statistics_module._histogram
    monkeypatch.setattr(statistics_module, "_histogram", lambda pixels: counted.append(1) or real(pixels))
    for group, options, fresh in (
        (records, {}, 5), (records, {}, 0), (records[1:], {}, 4), (records, {"channels": 1}, 5),
        (records, {"resize": 3}, 5), (records, {}, 0),
    ):  # fmt: skip
        counted.clear()
        measure(PixelStore(group, **{"channels": 3, **options}), cache)
        assert len(counted) == fresh
