"""Every kind of file becomes the pixels that NumPy expects."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from project.data.images import BadImage, decode, is_picture_name, resize_shorter, resized

H, W = 5, 7


def noise(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(3).integers(0, high, shape).astype(dtype)


def luma(rgb):
    """ITU-R BT.601, in whole numbers of 1/65536 as Pillow counts."""
    weights = np.array([19595, 38470, 7471])
    return ((rgb.astype(np.int64) @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


def over_white(rgba):
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def saved(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "TIFF", "webp", "ppm"])
def test_color_in_every_lossless_format(tmp_path, suffix):
    rgb = noise(H, W, 3)
    path = saved(tmp_path / f"Ünicode and space.{suffix}", rgb, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(decode(path, 3), rgb)
    np.testing.assert_array_equal(decode(path, 1), luma(rgb))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG"])
def test_jpeg(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", np.full((H, W, 3), (200, 100, 50), np.uint8), quality=95)
    assert np.abs(decode(path, 3).astype(int) - (200, 100, 50)).max() <= 3


def test_gray_becomes_three_equal_channels_and_stays_as_it_is(tmp_path):
    gray = noise(H, W)
    path = saved(tmp_path / "a.png", gray)
    assert decode(path, 1).dtype == np.uint8
    np.testing.assert_array_equal(decode(path, 1), gray[..., None])
    np.testing.assert_array_equal(decode(path, 3), np.repeat(gray[..., None], 3, axis=2))


def test_one_bit(tmp_path):
    bits = noise(H, W, high=2).astype(bool)
    path = tmp_path / "a.png"
    Image.fromarray(bits).save(path)
    np.testing.assert_array_equal(decode(path, 1)[..., 0], bits * 255)
    np.testing.assert_array_equal(decode(path, 3)[..., 2], bits * 255)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_gray_is_scaled_and_rounded(tmp_path, suffix):
    values = noise(H, W, high=65536, dtype=np.uint16)
    values[0, :4] = 0, 65535, 128, 129  # 128 / 257 = 0.498 and 129 / 257 = 0.502
    path = saved(tmp_path / f"a.{suffix}", values)
    np.testing.assert_array_equal(decode(path, 1)[..., 0], np.round(values / 257))
    assert decode(path, 3).shape == (H, W, 3)


def test_sixteen_bit_big_endian_tiff(tmp_path):
    values = noise(H, W, high=65536, dtype=np.uint16)
    path = tmp_path / "a.tif"
    Image.frombytes("I;16B", (W, H), values.astype(">u2").tobytes()).save(path)
    np.testing.assert_array_equal(decode(path, 1)[..., 0], np.round(values / 257))


def test_sixteen_bit_color_is_at_most_one_level_off(tmp_path):
    values = noise(H, W, 3, high=65536, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path = tmp_path / "a.png"
    path.write_bytes(png(W, H, depth=16, color=2, pixels=zlib.compress(rows)))
    assert np.abs(decode(path, 3) - values / 257).max() <= 1


def test_transparency_is_laid_over_white(tmp_path):
    rgba = noise(H, W, 4)
    path = saved(tmp_path / "a.png", rgba)
    assert np.abs(decode(path, 3) - over_white(rgba)).max() <= 1
    assert np.abs(decode(path, 1).astype(float) - luma(decode(path, 3))).max() == 0


def test_gray_with_transparency(tmp_path):
    gray, alpha = noise(H, W), noise(H, W)[::-1]
    path = tmp_path / "a.png"
    Image.merge("LA", [Image.fromarray(gray), Image.fromarray(np.ascontiguousarray(alpha))]).save(path)
    expected = gray * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(decode(path, 1)[..., 0] - expected).max() <= 1
    assert np.abs(decode(path, 3)[..., 1] - expected).max() <= 1


def test_palette_with_and_without_transparency(tmp_path):
    colors = noise(4, 3)
    numbers = noise(H, W, high=4)
    image = Image.fromarray(numbers).convert("P")
    image.putpalette(colors.tobytes())
    image.putdata(numbers.ravel().tolist())
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=2)
    expected = colors[numbers]
    np.testing.assert_array_equal(decode(tmp_path / "opaque.png", 3), expected)
    expected[numbers == 2] = 255
    np.testing.assert_array_equal(decode(tmp_path / "clear.png", 3), expected)


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk(tmp_path, suffix):
    ink = np.full((16, 16, 4), (40, 100, 200, 30), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ink, "CMYK").save(path, **({"quality": 95} if suffix == "jpg" else {}))
    expected = (255 - ink[..., :3].astype(float)) * (255 - 30) / 255
    assert np.abs(decode(path, 3) - expected).max() <= 4


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: np.swapaxes(a, 0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(np.swapaxes(a, 0, 1), 2)),
        (8, np.rot90),
    ],
)
def test_orientation_is_applied(tmp_path, orientation, upright):
    rgb = noise(H, W, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", rgb, exif=exif)
    np.testing.assert_array_equal(decode(path, 3), upright(rgb))


def test_the_first_frame_of_several(tmp_path):
    frames = [Image.fromarray(noise(H, W, 3)), Image.new("RGB", (W, H), "red")]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", 3), np.asarray(frames[0]))


def png(width, height, depth=8, color=2, pixels=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 30_000])  # above Pillow's limit, and above twice that
def test_a_bomb_is_refused_before_it_is_decoded(side, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadImage, match="decompression bomb"):
        decode(io.BytesIO(png(side, side)), 3)


def test_a_bomb_is_refused_where_warnings_are_errors_too():
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(BadImage, match="decompression bomb"):
        decode(io.BytesIO(png(10_000, 10_000)), 3)


def test_floats_and_wide_integers_are_refused_with_a_reason(tmp_path):
    Image.fromarray(np.ones((H, W), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((H, W), 70_000, np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(BadImage, match="floating-point"):
        decode(tmp_path / "float.tif", 3)
    with pytest.raises(BadImage, match="70000"):
        decode(tmp_path / "wide.tif", 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_file_cut_short_is_refused(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", noise(40, 50, 3))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(BadImage):
        decode(path, 3)


def written(tmp_path, kind):
    rgb = noise(H, W, 3)
    made = {
        "jpeg": lambda: saved(tmp_path / "a.jpg", rgb, quality=70),
        "gray jpeg": lambda: saved(tmp_path / "a.jpg", noise(H, W), quality=70),
        "transparent": lambda: saved(tmp_path / "a.png", noise(H, W, 4)),
        "16 bits": lambda: saved(tmp_path / "a.png", noise(H, W, high=65536, dtype=np.uint16)),
    }
    if kind in made:
        return made[kind]()
    image = Image.fromarray(rgb)
    if kind == "palette":
        image.quantize(6).save(tmp_path / "a.png")
        return tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    return tmp_path / "a.jpg"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["jpeg", "gray jpeg", "transparent", "palette", "16 bits", "turned"])
def test_a_window_is_that_part_of_the_whole(tmp_path, kind, channels):
    path = written(tmp_path, kind)
    whole = decode(path, channels)
    for window in ((slice(1, 4), slice(2, 5)), (slice(0, 2), slice(0, 3)), (slice(2, 99), slice(1, 99))):
        part = decode(path, channels, window)
        assert part.flags.c_contiguous
        np.testing.assert_array_equal(part, whole[window])


def test_a_picture_of_another_size_is_refused_where_one_is_asked_for(tmp_path):
    path = written(tmp_path, "turned")
    assert decode(path, 3, size=(H, W)).shape == (W, H, 3)
    with pytest.raises(BadImage, match="another size"):
        decode(path, 3, (slice(0, 2), slice(0, 2)), size=(W, H))


def test_shrinking_takes_the_mean_of_whole_blocks():
    pixels = noise(8, 12, 3)
    expected = pixels.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    small = resize_shorter(pixels, 4)
    assert small.shape == (4, 6, 3)
    assert np.abs(small - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "size"), [(5, 9, 3), (9, 5, 3), (5, 9, 12), (6, 6, 6), (5, 9, None)])
def test_resized_foretells_the_shape(channels, height, width, size):
    small = resize_shorter(noise(height, width, channels), size)
    assert (small.shape[1], small.shape[0]) == resized(width, height, size)
    assert small.shape[2] == channels
    assert min(small.shape[:2]) == (size or min(height, width))
    assert small.dtype == np.uint8


def test_picture_names():
    assert all(map(is_picture_name, ["a.jpg", "b.JPEG", "c.d.Png", "e.tiff", "f.WEBP"]))
    assert not any(map(is_picture_name, ["a.txt", "Thumbs.db", "jpg", "a.json"]))
