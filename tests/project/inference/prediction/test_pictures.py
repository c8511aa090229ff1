"""What survives from file to file."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from project.data.images import BadImage
from project.inference.prediction import pictures
from project.inference.prediction.pictures import FORMATS, Opened, open_picture, save_picture

random = np.random.default_rng(0)
COLOR = random.integers(0, 256, (13, 21, 3), dtype=np.uint8)
GREY = random.integers(0, 256, (13, 21, 1), dtype=np.uint8)
ALPHA = random.integers(0, 256, (13, 21), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
@pytest.mark.parametrize("pixels", [COLOR, GREY])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix, pixels):
    path = tmp_path / f"a{suffix}"
    save_picture(path, pixels, Opened(pixels))
    opened = open_picture(path)
    np.testing.assert_array_equal(opened.pixels, pixels)
    assert opened.alpha is None
    assert opened.notes == ()


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_the_extension_decides_the_format(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    smooth = np.broadcast_to(np.arange(0, 210, 10, dtype=np.uint8)[None, :, None], (13, 21, 3)).copy()
    save_picture(path, smooth, Opened(smooth))
    with Image.open(path) as image:
        assert image.format == FORMATS[suffix][0]
        assert image.size == (21, 13)
    assert np.abs(open_picture(path).pixels.astype(int) - smooth).max() <= 6
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("pixels", [COLOR, GREY])
def test_alpha_survives_and_the_colors_under_it_are_the_pixels(tmp_path, suffix, pixels):
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(pixels.squeeze())
    image.putalpha(Image.fromarray(ALPHA))
    image.save(path)
    opened = open_picture(path)
    np.testing.assert_array_equal(opened.pixels, pixels)
    np.testing.assert_array_equal(opened.alpha, ALPHA)
    save_picture(tmp_path / f"b{suffix}", 255 - pixels, opened)
    with Image.open(tmp_path / f"b{suffix}") as image:
        channels = np.asarray(image)
    np.testing.assert_array_equal(channels[..., :-1], 255 - pixels)
    np.testing.assert_array_equal(channels[..., -1], ALPHA)


def test_jpeg_has_no_alpha_and_gets_white_beneath(tmp_path):
    clear = np.zeros((13, 21), dtype=np.uint8)
    save_picture(tmp_path / "a.jpg", np.zeros((13, 21, 3), dtype=np.uint8), Opened(COLOR, alpha=clear))
    assert (open_picture(tmp_path / "a.jpg").pixels > 250).all()


def test_the_orientation_is_applied_once_and_the_rest_of_exif_stays(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn clockwise
    exif[0x010F] = "A camera"
    Image.fromarray(COLOR).save(tmp_path / "a.png", exif=exif)
    opened = open_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(opened.pixels, np.rot90(COLOR, -1))
    save_picture(tmp_path / "b.png", opened.pixels, opened)
    with Image.open(tmp_path / "b.png") as image:
        assert 0x0112 not in image.getexif()
        assert image.getexif()[0x010F] == "A camera"
    np.testing.assert_array_equal(open_picture(tmp_path / "b.png").pixels, np.rot90(COLOR, -1))


def test_the_orientation_is_applied_to_alpha_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(COLOR)
    image.putalpha(Image.fromarray(ALPHA))
    image.save(tmp_path / "a.png", exif=exif)
    opened = open_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(opened.pixels, np.rot90(COLOR, -1))
    np.testing.assert_array_equal(opened.alpha, np.rot90(ALPHA, -1))


def test_the_profile_survives_where_it_fits_the_colors(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOR).save(tmp_path / "a.jpg", icc_profile=profile)
    opened = open_picture(tmp_path / "a.jpg")
    save_picture(tmp_path / "b.jpg", opened.pixels, opened)
    save_picture(tmp_path / "gray.jpg", GREY, opened)
    with Image.open(tmp_path / "b.jpg") as color, Image.open(tmp_path / "gray.jpg") as gray:
        assert color.info["icc_profile"] == profile
        assert "icc_profile" not in gray.info


def test_what_is_lost_is_noted(tmp_path):
    deep = (GREY[..., 0].astype(np.uint16) * 257).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(COLOR).convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.fromarray(COLOR).save(tmp_path / "two.tif", save_all=True, append_images=[Image.fromarray(GREY[..., 0])])
    assert open_picture(tmp_path / "deep.png").notes == ("16 bits became 8",)
    np.testing.assert_array_equal(open_picture(tmp_path / "deep.png").pixels, GREY)
    assert open_picture(tmp_path / "cmyk.tif").notes == ("CMYK became RGB",)
    assert "first of several" in open_picture(tmp_path / "two.tif").notes[0]


def test_16_bit_color_is_noted(tmp_path):
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in COLOR)
    header = struct.pack(">IIBBBBB", 21, 13, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    opened = open_picture(tmp_path / "deep.png")
    assert opened.notes == ("16 bits became 8",)
    np.testing.assert_array_equal(opened.pixels, COLOR)


@pytest.mark.parametrize("content", [b"", b"only words"])
def test_what_is_no_picture_is_refused_with_a_reason(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BadImage, match="not an image"):
        open_picture(tmp_path / "a.png")


def test_a_picture_cut_short_is_refused(tmp_path):
    for name, mode in (("a.png", "RGB"), ("b.png", "RGBA")):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert(mode).save(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:3000])
        with pytest.raises(BadImage, match="cannot be decoded"):
            open_picture(tmp_path / name)


def test_large_pictures_are_welcome_and_bombs_are_not(tmp_path, monkeypatch):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    np.testing.assert_array_equal(open_picture(tmp_path / "a.png").pixels, COLOR)
    assert Image.MAX_IMAGE_PIXELS == 20
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    with pytest.raises(BadImage, match="decompression bomb"):
        open_picture(tmp_path / "a.png")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"before")

    def half(self, file, format):
        file.write_bytes(b"half a pic")
        raise OSError("the disk is full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk is full"):
        save_picture(path, COLOR, Opened(COLOR))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
