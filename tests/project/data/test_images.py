"""Every kind of file becomes the pixels that NumPy expects."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from project.data.images import BadImage, decode, resize_shorter, resized

H, W = 5, 7


def noise(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(3).integers(0, high, shape).astype(dtype)


def luma(rgb):
    """ITU-R BT.601, in whole numbers of 1/65536 as Pillow counts."""
    weights = np.array([19595, 38470, 7471])
    return ((rgb.astype(np.int64) @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def palette(numbers, colors):
    image = Image.fromarray(numbers).convert("P")
    image.putpalette(colors.tobytes())
    image.putdata(numbers.ravel().tolist())
    return image


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "TIFF", "webp", "ppm"])
def test_color_in_every_lossless_format(tmp_path, suffix):
    rgb = noise(H, W, 3)
    path = saved(tmp_path / f"Ünicode and space.{suffix}", rgb, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(decode(path, 3), rgb)
    np.testing.assert_array_equal(decode(path, 1), luma(rgb))


@pytest.mark.parametrize("high", [256, 2])
def test_gray_and_one_bit(tmp_path, high):
    values = noise(H, W, high=high)
    path = saved(tmp_path / "a.png", values if high == 256 else values.astype(bool))
    expected = values if high == 256 else values * 255
    np.testing.assert_array_equal(decode(path, 1), expected[..., None])
    np.testing.assert_array_equal(decode(path, 3), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_gray_is_scaled_and_rounded(tmp_path, suffix):
    values = noise(H, W, high=65536, dtype=np.uint16)
    values[0, :4] = 0, 65535, 128, 129  # 128 / 257 = 0.498 and 129 / 257 = 0.502
    path = saved(tmp_path / f"a.{suffix}", values)
    np.testing.assert_array_equal(decode(path, 1)[..., 0], np.round(values / 257))
    assert decode(path, 3).shape == (H, W, 3)
    Image.frombytes("I;16B", (W, H), values.astype(">u2").tobytes()).save(tmp_path / "big-endian.tif")
    np.testing.assert_array_equal(decode(tmp_path / "big-endian.tif", 1), decode(path, 1))


def test_sixteen_bit_color_is_at_most_one_level_off(tmp_path):
    values = noise(H, W, 3, high=65536, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(W, H, depth=16, color=2, pixels=zlib.compress(rows)))
    assert np.abs(decode(tmp_path / "a.png", 3) - values / 257).max() <= 1


@pytest.mark.parametrize("gray", [False, True])
def test_transparency_is_laid_over_white(tmp_path, gray):
    rgba = noise(H, W, 4)
    image = Image.fromarray(rgba)
    if gray:
        rgba[..., :3] = rgba[..., :1]
        image = Image.merge("LA", [Image.fromarray(np.ascontiguousarray(rgba[..., c])) for c in (0, 3)])
    image.save(tmp_path / "a.png")
    alpha = rgba[..., 3:] / 255
    assert np.abs(decode(tmp_path / "a.png", 3) - (rgba[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1
    np.testing.assert_array_equal(decode(tmp_path / "a.png", 1), luma(decode(tmp_path / "a.png", 3)))


def test_palette_with_and_without_transparency(tmp_path):
    colors, numbers = noise(4, 3), noise(H, W, high=4)
    palette(numbers, colors).save(tmp_path / "opaque.png")
    palette(numbers, colors).save(tmp_path / "clear.png", transparency=2)
    expected = colors[numbers]
    np.testing.assert_array_equal(decode(tmp_path / "opaque.png", 3), expected)
    expected[numbers == 2] = 255
    np.testing.assert_array_equal(decode(tmp_path / "clear.png", 3), expected)


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk_and_jpeg(tmp_path, suffix):
    ink, options = np.full((16, 16, 4), (40, 100, 200, 30), np.uint8), {"quality": 95} if suffix == "jpg" else {}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ink, "CMYK").save(path, **options)
    expected = (255 - ink[..., :3].astype(float)) * (255 - 30) / 255
    assert np.abs(decode(path, 3) - expected).max() <= 4
    saved(path, ink[..., :3], **options)
    assert np.abs(decode(path, 3) - ink[..., :3].astype(int)).max() <= 3


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_to_images_and_masks(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb, classes = noise(H, W, 3), noise(H, W, high=9)
    np.testing.assert_array_equal(decode(saved(tmp_path / "a.png", rgb, exif=exif), 3), UPRIGHT[orientation](rgb))
    mask = decode(saved(tmp_path / "m.png", classes, exif=exif), 1, mask=True)
    np.testing.assert_array_equal(mask[..., 0], UPRIGHT[orientation](classes))


def test_the_first_frame_of_several(tmp_path):
    frames = [Image.fromarray(noise(H, W, 3)), Image.new("RGB", (W, H), "red")]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(tmp_path / "a.tif", 3), np.asarray(frames[0]))


def test_masks_are_class_numbers(tmp_path):
    classes = noise(H, W, high=4)
    palette(classes, noise(4, 3)).save(tmp_path / "palette.png", transparency=2)
    saved(tmp_path / "gray.png", classes)
    saved(tmp_path / "wide.png", classes.astype(np.uint16))
    saved(tmp_path / "bits.png", classes > 1)
    for name in ("palette", "gray", "wide"):
        np.testing.assert_array_equal(decode(tmp_path / f"{name}.png", 1, mask=True), classes[..., None])
    np.testing.assert_array_equal(decode(tmp_path / "bits.png", 1, mask=True)[..., 0], classes > 1)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("rgb.png", noise(H, W, 3), "RGB instead of one channel"),
        ("float.tif", np.ones((H, W), np.float32), "F instead of one channel"),
        ("gray.jpg", noise(H, W), "JPEG"),
        ("wide.png", np.full((H, W), 300, np.uint16), "from 300 to 300"),
    ],
)
def test_what_is_no_mask(tmp_path, name, array, reason):
    with pytest.raises(BadImage, match=reason):
        decode(saved(tmp_path / name, array), 1, mask=True)


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


def test_floats_and_wide_integers_are_refused_with_a_reason(tmp_path):
    with pytest.raises(BadImage, match="floating-point"):
        decode(saved(tmp_path / "float.tif", np.ones((H, W), np.float32)), 3)
    with pytest.raises(BadImage, match="70000"):
        decode(saved(tmp_path / "wide.tif", np.full((H, W), 70_000, np.int32)), 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_file_cut_short_is_refused(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", noise(40, 50, 3))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(BadImage):
        decode(path, 3)


def test_shrinking_takes_the_mean_of_whole_blocks_and_of_masks_their_center():
    pixels = noise(9, 12, 3)
    small = resize_shorter(pixels, 3)
    assert np.abs(small - pixels.reshape(3, 3, 4, 3, 3).mean(axis=(1, 3))).max() <= 1
    np.testing.assert_array_equal(resize_shorter(pixels[..., :1], 3, mask=True), pixels[1::3, 1::3, :1])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "size"), [(5, 9, 3), (9, 5, 3), (5, 9, 12), (6, 6, 6), (5, 9, None)])
def test_resized_predicts_the_shape(channels, height, width, size):
    small = resize_shorter(noise(height, width, channels), size)
    assert (small.shape[1], small.shape[0]) == resized(width, height, size)
    assert small.shape[2] == channels
    assert min(small.shape[:2]) == (size or min(height, width))
    assert small.dtype == np.uint8
