"""The store gives the same pixels from the file as from the images."""

import pickle

import numpy as np
import pytest
from PIL import Image

from project.data import pixels as pixels_module
from project.data.cache import Cache
from project.data.folder import Folder
from project.data.index import index_pictures
from project.data.pixels import PixelStore, pixel_file
from workbench.errors import UserError

SIZES = [(9, 7), (5, 8), (6, 6), (11, 4)]  # (width, height)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def make(folder, seed, cache):
    folder.mkdir()
    random = np.random.default_rng(seed)
    arrays = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number}.png")
    return arrays


def keep(pictures, cache, channels=3, resize=None, limit_gb=1.0):
    return pixel_file(pictures, channels=channels, resize=resize, cache=cache, limit_gb=limit_gb, workers=2)


@pytest.fixture
def single(tmp_path, cache):
    arrays = make(tmp_path / "a", 1, cache)
    return index_pictures(Folder(str(tmp_path / "a")).find(), cache=cache), arrays


@pytest.fixture
def pairs(tmp_path, cache):
    inputs, targets = make(tmp_path / "a", 1, cache), make(tmp_path / "b", 2, cache)
    return index_pictures(Folder(str(tmp_path / "a"), str(tmp_path / "b")).find(), cache=cache), inputs, targets


@pytest.mark.parametrize("kept", [True, False])
def test_gives_each_picture_in_any_order(single, cache, kept):
    pictures, arrays = single
    file = keep(pictures, cache) if kept else None
    order = [2, 0, 3]
    store = PixelStore([pictures[number] for number in order], channels=3, file=file)
    assert len(store) == 3
    assert not store.has_targets
    for position, number in enumerate(order):
        np.testing.assert_array_equal(store[position], arrays[number])
        assert (store.width(position), store.height(position)) == SIZES[number]


@pytest.mark.parametrize("kept", [True, False])
def test_gives_both_sides_of_pairs(pairs, cache, kept):
    pictures, inputs, targets = pairs
    store = PixelStore(pictures, channels=3, file=keep(pictures, cache) if kept else None)
    assert store.has_targets
    for position in range(4):
        np.testing.assert_array_equal(store[position], inputs[position])
        np.testing.assert_array_equal(store.target(position), targets[position])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 3, 10])
def test_the_file_holds_what_decoding_gives(pairs, cache, channels, resize):
    pictures, _, _ = pairs
    kept = PixelStore(pictures, channels=channels, resize=resize, file=keep(pictures, cache, channels, resize))
    fresh = PixelStore(pictures, channels=channels, resize=resize)
    for position in range(4):
        assert kept[position].shape == (kept.height(position), kept.width(position), channels)
        np.testing.assert_array_equal(kept[position], fresh[position])
        np.testing.assert_array_equal(kept.target(position), fresh.target(position))
        for store in (kept, fresh):
            for window in (None, (slice(1, 3), slice(0, 2))):
                expected = [
                    side if window is None else side[window] for side in (store[position], store.target(position))
                ]
                for part, wanted in zip(store.parts(position, window), expected, strict=True):
                    np.testing.assert_array_equal(part, wanted)


def test_travels_without_pixels_and_reads_in_the_other_process(single, cache):
    pictures, arrays = single
    store = PixelStore(pictures, channels=3, file=keep(pictures, cache))
    assert isinstance(store[0].base, np.memmap)
    sent = pickle.dumps(store)
    assert len(sent) < 3000
    np.testing.assert_array_equal(pickle.loads(sent)[3], arrays[3])


def test_views_cannot_be_written(single, cache):
    pictures, _ = single
    with pytest.raises(ValueError, match="read-only"):
        PixelStore(pictures, channels=3, file=keep(pictures, cache))[0][:] = 0


def test_the_file_is_made_once_and_anew_when_it_is_cut(single, cache, monkeypatch):
    pictures, arrays = single
    path = keep(pictures, cache).path
    with monkeypatch.context() as patch:
        patch.setattr(pixels_module, "decode", lambda *_: pytest.fail("decoded again"))
        assert keep(pictures[::-1], cache).path == path
    path.write_bytes(path.read_bytes()[:100])
    store = PixelStore(pictures, channels=3, file=keep(pictures, cache))
    np.testing.assert_array_equal(store[3], arrays[3])


def test_other_pictures_channels_or_sizes_take_another_file(single, cache):
    pictures, _ = single
    files = [keep(pictures, cache), keep(pictures[:3], cache), keep(pictures, cache, 1), keep(pictures, cache, 3, 4)]
    assert len({file.path for file in files}) == 4


def test_copies_are_kept_once(single, cache):
    pictures, _ = single
    assert keep([*pictures, *pictures], cache).bytes == sum(3 * width * height for width, height in SIZES)


def test_above_the_limit_nothing_is_kept(single, cache):
    pictures, _ = single
    assert keep(pictures, cache, limit_gb=1e-7) is None
    assert keep(pictures, cache, limit_gb=0) is None
    assert not list(cache.folder.glob("pixels*"))


def test_a_picture_that_changed_since_it_was_checked_is_said(single):
    pictures, _ = single
    store = PixelStore(pictures, channels=3)
    Image.new("RGB", (30, 30)).save(pictures[0].path)
    with pytest.raises(UserError, match="has changed since it was checked: it was of another size"):
        store[0]
    open(pictures[1].path, "w").close()  # noqa: PTH123
    with pytest.raises(UserError, match="has changed since it was checked"):
        store[1]


def test_a_file_of_pixels_that_is_gone_is_said(single, cache):
    pictures, _ = single
    file = keep(pictures, cache)
    store = PixelStore(pictures, channels=3, file=file)
    file.path.unlink()
    with pytest.raises(UserError, match="are gone"):
        store[0]
