"""The store gives the same pixels from the file as from the images."""

import pickle

import numpy as np
import pytest
from PIL import Image

from project.data import pixels as pixels_module
from project.data.folder import Folder
from project.data.index import index_images
from project.data.pixels import PixelStore, pixel_file, write_pixels
from workbench.errors import UserError

SIZES = [(9, 7), (5, 8), (6, 6), (11, 4)]  # (width, height)


def make(folder, seed):
    folder.mkdir()
    random = np.random.default_rng(seed)
    arrays = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number}.png")
    return arrays


def keep(records, cache, channels=3, resize=None, masks=False, limit_gb=1.0):
    options = {"channels": channels, "resize": resize, "masks": masks}
    file = pixel_file(records, cache, **options)
    return file if write_pixels(file, records, cache, limit_gb, workers=2, **options) else None


@pytest.fixture
def single(tmp_path, cache):
    arrays = make(tmp_path / "c", 1)
    return index_images(Folder(str(tmp_path / "c")).find(), cache=cache), arrays


@pytest.fixture
def pairs(tmp_path, cache):
    inputs, targets = make(tmp_path / "a", 1), make(tmp_path / "b", 2)
    return index_images(Folder(str(tmp_path / "a"), str(tmp_path / "b")).find(), cache=cache), inputs, targets


@pytest.mark.parametrize("kept", [True, False])
def test_gives_each_image_in_any_order_and_both_sides_of_pairs(single, pairs, cache, kept):
    records, arrays = single
    order = [2, 0, 3]
    store = PixelStore([records[n] for n in order], channels=3, file=keep(records, cache) if kept else None)
    assert len(store) == 3 and not store.has_targets
    for position, number in enumerate(order):
        np.testing.assert_array_equal(store[position], arrays[number])
        assert (store.width(position), store.height(position)) == SIZES[number]
    records, inputs, targets = pairs
    store = PixelStore(records, channels=3, file=keep(records, cache) if kept else None)
    assert store.has_targets
    for position in range(4):
        np.testing.assert_array_equal(store[position], inputs[position])
        np.testing.assert_array_equal(store.target(position), targets[position])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", [None, 3, 10])
def test_the_file_holds_what_decoding_gives(pairs, cache, channels, resize):
    records, _, _ = pairs
    kept = PixelStore(records, channels=channels, resize=resize, file=keep(records, cache, channels, resize))
    fresh = PixelStore(records, channels=channels, resize=resize)
    for position in range(4):
        assert kept[position].shape == (kept.height(position), kept.width(position), channels)
        np.testing.assert_array_equal(kept[position], fresh[position])
        np.testing.assert_array_equal(kept.target(position), fresh.target(position))
        for store in (kept, fresh):
            for window in (..., (slice(1, 3), slice(0, 2))):
                found = store.read(position, None if window is ... else window)
                for side, whole in zip(found, (store[position], store.target(position)), strict=True):
                    np.testing.assert_array_equal(side, whole[window])


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("resize", [None, 3])
def test_masks_keep_their_classes(tmp_path, pairs, cache, kept, resize):
    classes = [np.random.default_rng(n).integers(0, 5, (h, w), np.uint8) for n, (w, h) in enumerate(SIZES)]
    for number, array in enumerate(classes):
        Image.fromarray(array).save(tmp_path / "b" / f"{number}.png")
    records = index_images(Folder(str(tmp_path / "a"), str(tmp_path / "b")).find(), cache=cache, masks=True)
    file = keep(records, cache, 3, resize, masks=True) if kept else None
    store = PixelStore(records, channels=3, resize=resize, masks=True, file=file)
    for position, array in enumerate(classes):
        mask, height, width = store.target(position), store.height(position), store.width(position)
        # Nearest neighbor: the pixel under each new pixel's center.
        rows = ((np.arange(height) + 0.5) * len(array) / height).astype(int)
        columns = ((np.arange(width) + 0.5) * len(array[0]) / width).astype(int)
        np.testing.assert_array_equal(mask[..., 0], array[rows][:, columns])
        assert store[position].shape == (height, width, 3)


def test_travels_without_pixels_and_reads_in_the_other_process(single, cache):
    records, arrays = single
    store = PixelStore(records, channels=3, file=keep(records, cache))
    assert isinstance(store[0].base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store[0][:] = 0
    sent = pickle.dumps(store)
    assert len(sent) < 3000
    np.testing.assert_array_equal(pickle.loads(sent)[3], arrays[3])


def test_the_file_is_made_once_and_anew_when_it_is_cut(single, cache, monkeypatch):
    records, arrays = single
    path = keep(records, cache).path
    with monkeypatch.context() as patch:
        patch.setattr(pixels_module, "decode", lambda *_, **__: pytest.fail("decoded again"))
        assert keep(records[::-1], cache).path == path
    path.write_bytes(path.read_bytes()[:100])
    store = PixelStore(records, channels=3, file=keep(records, cache))
    np.testing.assert_array_equal(store[3], arrays[3])


def test_other_images_channels_or_sizes_take_another_file_and_copies_are_kept_once(single, cache):
    records, _ = single
    files = [keep(records, cache), keep(records[:3], cache), keep(records, cache, 1), keep(records, cache, 3, 4)]
    assert len({file.path for file in files}) == 4
    assert keep([*records, *records], cache).bytes == sum(3 * width * height for width, height in SIZES)


def test_above_the_limit_nothing_is_kept(single, cache):
    records, _ = single
    assert keep(records, cache, limit_gb=1e-7) is keep(records, cache, limit_gb=0) is None
    assert not list(cache.folder.glob("pixels*"))


def test_what_changed_since_it_was_checked_is_reported(single, cache):
    records, _ = single
    file = keep(records, cache)
    file.path.unlink()
    with pytest.raises(UserError, match="are gone"):
        PixelStore(records, channels=3, file=file)[0]
    store = PixelStore(records, channels=3)
    Image.new("RGB", (30, 30)).save(records[0].path)
    with pytest.raises(UserError, match="has changed since it was checked: it was of another size"):
        store[0]
    open(records[1].path, "w").close()  # noqa: PTH123
    with pytest.raises(UserError, match="has changed since it was checked"):
        store[1]
