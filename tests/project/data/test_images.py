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


RGB, GRAY, WIDE, INK = noise(H, W, 3), noise(H, W), noise(H, W, high=65536, dtype=np.uint16), noise(4, 3)
WIDE[0, :4] = 0, 65535, 128, 129  # 128 / 257 = 0.498 and 129 / 257 = 0.502
NUMBERS = noise(H, W, high=4)
CLEAR_INK = np.where(NUMBERS[..., None] == 2, 255, INK[NUMBERS])
ALPHA = noise(H, W)
FLAT = np.full((16, 16, 4), (40, 100, 200, 30), np.uint8)


def on_white(pixels):
    share = ALPHA[..., None] / 255
    return pixels * share + 255 * (1 - share)


def translucent(pixels):
    image = Image.fromarray(pixels)
    image.putalpha(Image.fromarray(ALPHA))
    return image


FILES = {  # the image, how it is saved, its colors (or grays), and how far off they may be
    **{f"Ünicode and space.{suffix}": (RGB, {}, RGB, 0) for suffix in ("png", "PNG", "bmp", "TIFF", "ppm")},
    "lossless.webp": (RGB, {"lossless": True}, RGB, 0),
    "gray.png": (GRAY, {}, GRAY, 0),
    "bits.png": (GRAY > 99, {}, (GRAY > 99) * 255, 0),
    **{f"wide.{suffix}": (WIDE, {}, np.round(WIDE / 257), 0) for suffix in ("png", "tif", "pgm")},
    "big-endian.tif": (Image.frombytes("I;16B", (W, H), WIDE.astype(">u2").tobytes()), {}, np.round(WIDE / 257), 0),
    "clear.png": (translucent(RGB), {}, on_white(RGB), 1),
    "clear gray.png": (translucent(GRAY), {}, on_white(GRAY[..., None])[..., 0], 1),
    "palette.png": (palette(NUMBERS, INK), {}, INK[NUMBERS], 0),
    "clear palette.png": (palette(NUMBERS, INK), {"transparency": 2}, CLEAR_INK, 0),
    **{
        f"ink.{suffix}": (Image.fromarray(FLAT, "CMYK"), {}, (255.0 - FLAT[..., :3]) * (255 - 30) / 255, 4)
        for suffix in ("tif", "jpg")
    },
    "flat.jpg": (FLAT[..., :3], {"quality": 95}, FLAT[..., :3], 3),
    "frames.tif": (RGB, {"save_all": True, "append_images": [Image.new("RGB", (W, H), "red")]}, RGB, 0),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_becomes_color_and_its_luma(tmp_path, name):
    image, options, expected, tolerance = FILES[name]
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(tmp_path / name, **options)
    color, gray = decode(tmp_path / name, 3), decode(tmp_path / name, 1)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert color.dtype == gray.dtype == np.uint8 and color.shape == expected.shape
    assert np.abs(color - expected.astype(float)).max() <= tolerance
    np.testing.assert_array_equal(gray, luma(color))


def test_sixteen_bit_color_is_at_most_one_level_off(tmp_path):
    values = noise(H, W, 3, high=65536, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(W, H, depth=16, color=2, pixels=zlib.compress(rows)))
    assert np.abs(decode(tmp_path / "a.png", 3) - values / 257).max() <= 1


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
