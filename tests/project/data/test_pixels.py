"""The store gives the same pixels from the file as from the images."""

import pickle

import numpy as np
import pytest
from PIL import Image

from project.data import pixels as pixels_module
from project.data.folder import find_images
from project.data.index import index_images
from project.data.pixels import PixelStore, decode_once
from workbench.errors import UserError


def keep(records, cache, limit_gb=1.0, **options):
    return decode_once(records, cache, limit_gb, **{"channels": 3, **options})


@pytest.fixture
def single(folders, cache):
    return index_images(find_images(folders[0]), cache=cache), folders[2]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 3, 10])
def test_pairs_in_any_order_and_the_file_holds_what_decoding_gives(folders, cache, channels, resize):
    options = {"channels": channels, "resize": resize}
    records = index_images(find_images(*folders[:2]), cache=cache)
    file, order = keep(records, cache, **options), [2, 0, 3]
    kept, fresh = (PixelStore([records[n] for n in order], file=one, **options) for one in (file, None))
    assert len(kept) == 3 and kept.has_targets
    for position, number in enumerate(order):
        assert kept[position].shape == (kept.height(position), kept.width(position), channels)
        if (channels, resize) == (3, None):
            np.testing.assert_array_equal(kept[position], folders[2][number])
            np.testing.assert_array_equal(kept.target(position), folders[3][number])
        np.testing.assert_array_equal(kept[position], fresh[position])
        np.testing.assert_array_equal(kept.target(position), fresh.target(position))
        for store in (kept, fresh):
            window = (slice(1, 3), slice(0, 2))
            for side, whole in zip(store.read(position, window), store.read(position), strict=True):
                np.testing.assert_array_equal(side, whole[window])


def test_travels_without_pixels_and_reads_in_the_other_process(single, cache):
    records, arrays = single
    store = PixelStore(records, channels=3, file=keep(records, cache))
    assert not store.has_targets and isinstance(store[0].base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store[0][:] = 0
    sent = pickle.dumps(store)
    assert len(sent) < 3000
    np.testing.assert_array_equal(pickle.loads(sent)[3], arrays[3])


def test_the_file_is_made_once_and_anew_when_it_is_cut(single, cache, monkeypatch):
    records, arrays = single
    path, _ = keep(records, cache)
    with monkeypatch.context() as patch:
        patch.setattr(pixels_module, "decode", lambda *_, **__: pytest.fail("decoded again"))
        assert keep([*records[::-1], records[0]], cache)[0] == path
    assert path.stat().st_size == sum(array.size for array in arrays)
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(PixelStore(records, channels=3, file=keep(records, cache))[3], arrays[3])
    others = [keep(records[:3], cache), keep(records, cache, channels=1), keep(records, cache, resize=4)]
    assert len({path, *(other for other, _ in others)}) == 4


def test_above_the_limit_nothing_is_kept(single, cache):
    assert keep(single[0], cache, limit_gb=1e-7) is keep(single[0], cache, limit_gb=0) is None
    assert not list(cache.folder.glob("pixels*"))


def test_what_changed_since_it_was_checked_is_reported(single):
    records, _ = single
    store = PixelStore(records, channels=3)
    Image.new("RGB", (30, 30)).save(records[0].path)
    with pytest.raises(UserError, match="has changed since it was checked: it was of another size"):
        store[0]
    open(records[1].path, "w").close()  # noqa: PTH123
    with pytest.raises(UserError, match="has changed since it was checked"):
        store[1]
