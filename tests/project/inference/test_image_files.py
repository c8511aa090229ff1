"""Which images there are and where outputs go; and what survives from file to file."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from project.data.images import BadImage
from project.inference import image_files
from project.inference.image_files import FORMATS, ImageFile, list_inputs, read_image, write_image
from workbench.errors import UserError

random = np.random.default_rng(0)
COLOR = random.integers(0, 256, (13, 21, 3), dtype=np.uint8)
GRAY = random.integers(0, 256, (13, 21, 1), dtype=np.uint8)
ALPHA = random.integers(0, 256, (13, 21), dtype=np.uint8)


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_the_extension_decides_the_format(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    smooth = np.broadcast_to(np.arange(0, 210, 10, dtype=np.uint8)[None, :, None], (13, 21, 3)).copy()
    write_image(path, smooth, ImageFile(smooth))
    with Image.open(path) as image:
        assert image.format == FORMATS[suffix][0]
        assert image.size == (21, 13)
    assert np.abs(read_image(path).pixels.astype(int) - smooth).max() <= 6
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix in (".png", ".bmp", ".tif"):
        for pixels in (COLOR, GRAY):
            write_image(path, pixels, ImageFile(pixels))
            opened = read_image(path)
            np.testing.assert_array_equal(opened.pixels, pixels)
            assert opened.alpha is None and not opened.deep


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("pixels", [COLOR, GRAY])
def test_alpha_survives_and_the_colors_under_it_are_the_pixels(tmp_path, suffix, pixels):
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(pixels.squeeze())
    image.putalpha(Image.fromarray(ALPHA))
    image.save(path)
    opened = read_image(path)
    np.testing.assert_array_equal(opened.pixels, pixels)
    np.testing.assert_array_equal(opened.alpha, ALPHA)
    write_image(tmp_path / f"b{suffix}", 255 - pixels, opened)
    with Image.open(tmp_path / f"b{suffix}") as image:
        channels = np.asarray(image)
    np.testing.assert_array_equal(channels[..., :-1], 255 - pixels)
    np.testing.assert_array_equal(channels[..., -1], ALPHA)


def test_jpeg_has_no_alpha_and_gets_white_beneath(tmp_path):
    clear = np.zeros((13, 21), dtype=np.uint8)
    write_image(tmp_path / "a.jpg", np.zeros((13, 21, 3), dtype=np.uint8), ImageFile(COLOR, alpha=clear))
    assert (read_image(tmp_path / "a.jpg").pixels > 250).all()


def test_the_orientation_is_applied_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn clockwise
    image = Image.fromarray(COLOR)
    image.putalpha(Image.fromarray(ALPHA))
    image.save(tmp_path / "a.png", exif=exif)
    opened = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(opened.pixels, np.rot90(COLOR, -1))
    np.testing.assert_array_equal(opened.alpha, np.rot90(ALPHA, -1))
    write_image(tmp_path / "b.png", opened.pixels, opened)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png").pixels, np.rot90(COLOR, -1))


@pytest.mark.parametrize("pixels", [COLOR, GRAY])
def test_16_bits_are_noted(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "deep.png"), pixels[..., ::-1].astype(np.uint16) * 257)
    opened = read_image(tmp_path / "deep.png")
    assert opened.deep
    np.testing.assert_array_equal(opened.pixels, pixels)


def test_what_is_no_image_or_not_whole_is_refused_with_a_reason(tmp_path):
    for content in (b"", b"only words"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(BadImage, match="not an image"):
            read_image(tmp_path / "a.png")
    for mode in ("RGB", "RGBA"):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert(mode).save(tmp_path / "a.png")
        (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
        with pytest.raises(BadImage, match="cannot be decoded"):
            read_image(tmp_path / "a.png")
    with pytest.raises(BadImage, match="cannot be decoded"):
        read_image(tmp_path)


def test_large_images_are_welcome_and_bombs_are_not(tmp_path, monkeypatch):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, COLOR)
    assert Image.MAX_IMAGE_PIXELS == 20
    monkeypatch.setattr(image_files, "MAX_PIXELS", 100)
    with pytest.raises(BadImage, match="decompression bomb"):
        read_image(tmp_path / "a.png")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"before")

    def half(self, file, format):
        file.write_bytes(b"half a pic")
        raise OSError("the disk is full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk is full"):
        write_image(path, COLOR, ImageFile(COLOR))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Some images at several depths, and a file that is none."""
    root = tmp_path / "in"
    for name in ("b.JPG", "a.png", "deep/er/a.webp", "deep/c.gif"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOR).save(root / name)
    (root / "read.txt").write_text("words")
    return root


def targets(folder, output):
    return {item.name: item.target.relative_to(output).as_posix() for item in list_inputs(folder, output)}


def test_names_and_folders_are_kept_and_only_foreign_formats_become_png(folder, tmp_path):
    assert targets(folder, tmp_path / "out") == {
        "a.png": "a.png",
        "b.JPG": "b.JPG",
        "deep/c.gif": "deep/c.png",
        "deep/er/a.webp": "deep/er/a.webp",
    }
    (item,) = list_inputs(folder / "deep/c.gif", tmp_path / "out", "noisy")
    assert (item.name, item.source) == ("c.gif", folder / "deep/c.gif")
    assert (item.target, item.beside) == (tmp_path / "out/c.png", tmp_path / "out/c.noisy.png")


def test_an_output_folder_inside_is_skipped(folder):
    output = folder / "deep" / "out"
    before = targets(folder, output)
    output.mkdir()
    Image.fromarray(COLOR).save(output / "a.png")
    assert targets(folder, output) == before


def refusal(*arguments):
    with pytest.raises(UserError) as caught:
        list_inputs(*arguments)
    assert len(str(caught.value).splitlines()) <= 10
    return str(caught.value)


def test_nothing_is_overwritten_and_no_two_images_become_one(folder, tmp_path):
    for arguments in ((folder, folder), (folder / "a.png", folder), (folder, folder / "deep" / "..")):
        assert "would overwrite" in refusal(*arguments)
    (folder / "deep/deep").mkdir()
    for name in ("deep/b.JPG", "deep/deep/b.JPG"):
        Image.fromarray(COLOR).save(folder / name)
    message = refusal(folder / "deep", folder)
    assert "would overwrite" in message
    assert "deep/b.JPG" in message
    Image.fromarray(COLOR).save(folder / "a.jpg")
    assert len(list_inputs(folder, tmp_path / "out")) == 7
    assert "a.jpg and a.png would both become" in refusal(folder, tmp_path / "out", "uncertainty")


def test_missing_things_are_named(folder, tmp_path):
    assert "does not exist" in refusal(folder / "deeper", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "no image" in refusal(tmp_path / "empty", tmp_path / "out")
    assert "is a file" in refusal(folder, folder / "read.txt")
    assert "is a file" in refusal(folder / "a.png", tmp_path / "out.png")


def test_done_is_no_older_than_the_image_and_what_else_it_is_made_from(folder, tmp_path):
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    (item,) = list_inputs(folder / "a.png", tmp_path / "out")
    assert not item.is_done(checkpoint)
    item.target.parent.mkdir()
    item.target.write_bytes(b"pixels")
    assert item.is_done(checkpoint)
    later = item.target.stat().st_mtime + 10
    for newer in (folder / "a.png", checkpoint):
        before = newer.stat()
        os.utime(newer, (later, later))
        assert not item.is_done(checkpoint)
        os.utime(newer, (before.st_atime, before.st_mtime))
