"""Every bad file is named in one error; nothing is read twice."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from project.data import index
from project.data.cache import Cache
from project.data.folder import Folder
from project.data.images import Entry
from project.data.index import index_pictures
from workbench.errors import UserError


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def good(tmp_path):
    """A folder of three good images of 40 x 30 pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        picture(folder / f"good {number}.png", seed=number)
    return folder


def picture(path, width=40, height=30, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def bomb():
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def plant_bad_files(folder):
    """One of each kind; returns what must be said of each."""
    picture(folder / "cut.jpg", 400, 300)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:3000])
    (folder / "text.jpg").write_text("I am no image")
    (folder / "zero.PNG").write_bytes(b"")
    picture(folder / "one.png", 1, 1)
    picture(folder / "deep" / "small.png", 40, 15)
    (folder / "bomb.png").write_bytes(bomb())
    Image.fromarray(np.ones((40, 40), np.float32)).save(folder / "float.tiff")
    return {
        "cut.jpg": "truncated",
        "text.jpg": "not an image",
        "zero.PNG": "0 bytes",
        "one.png": "1x1",
        "deep/small.png": "40x15",
        "bomb.png": "decompression bomb",
        "float.tiff": "floating-point",
    }


def run(folder, cache, **options):
    return index_pictures(Folder(str(folder)).find(), cache=cache, **{"min_size": 16, "workers": 2, **options})


def test_good_pictures_are_described(good, cache):
    picture(good / "tag" / "tall.png", 20, 50)
    found = run(good, cache)
    assert [p.name for p in found] == ["good 0.png", "good 1.png", "good 2.png", "tag/tall.png"]
    assert (found[3].width, found[3].height, found[3].tag) == (20, 50, "tag")
    assert found[3].path == str(good / "tag" / "tall.png")
    assert len({p.digest for p in found}) == 4


def test_width_and_height_are_those_of_the_upright_picture(good, cache):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 20)).save(good / "turned.jpg", exif=exif)
    turned = next(p for p in run(good, cache) if p.name == "turned.jpg")
    assert (turned.width, turned.height) == (20, 60)


def test_every_kind_of_bad_file_is_in_one_error_of_ten_lines(good, cache):
    expected = plant_bad_files(good)
    with pytest.raises(UserError) as error:
        run(good, cache)
    lines = str(error.value).splitlines()
    assert lines[0] == "7 of 10 images cannot be used:"
    assert len(lines) <= 10
    assert "--data.on_bad_image skip" in lines[-1]
    for name, reason in expected.items():
        (line,) = [line for line in lines if line.strip().startswith(f"{name}: ")]
        assert reason in line


def test_skip_warns_with_every_name_and_keeps_the_good_ones(good, cache):
    expected = plant_bad_files(good)
    with pytest.warns(UserWarning, match="Left out 7 of 10") as warned:
        found = run(good, cache, on_bad_image="skip")
    assert [p.name for p in found] == ["good 0.png", "good 1.png", "good 2.png"]
    assert all(name in str(warned[0].message) for name in expected)
    assert len(warned) == 1  # Pillow's own warning of the bomb is not shown on top


def test_a_long_list_is_cut_and_lies_whole_in_a_file(good, cache):
    for number in range(20):
        (good / f"bad{number:02}.jpg").write_text("no")
    with pytest.raises(UserError, match=r"and 13 more, see .*bad_pictures.txt") as error:
        run(good, cache)
    assert len(str(error.value).splitlines()) == 10
    listed = cache.path("bad_pictures.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in listed] == [f"bad{number:02}.jpg" for number in range(20)]


def test_skipping_everything_is_an_error(tmp_path, cache):
    (tmp_path / "a.jpg").write_text("no")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="None of the 1 images"):
        run(tmp_path, cache, on_bad_image="skip")


def test_excluded_bad_files_are_not_complained_about(good, cache):
    expected = plant_bad_files(good)
    assert len(run(good, cache, excluded=set(expected))) == 3


def test_a_row_of_pixels_is_too_small_whatever_the_crop(good, cache):
    picture(good / "row.png", 40, 1)
    with pytest.raises(UserError, match=r"row.png: is too small \(40x1 pixels, needed are 2x2\)"):
        run(good, cache, min_size=0)


@pytest.mark.parametrize("workers", [0, 3])
def test_the_second_pass_reads_nothing_good_or_bad(good, cache, monkeypatch, workers):
    plant_bad_files(good)
    with pytest.warns(UserWarning):
        first = run(good, cache, on_bad_image="skip", workers=workers)
    monkeypatch.setattr(index, "decode", lambda *_, **__: pytest.fail("decoded again"))
    with pytest.warns(UserWarning, match="Left out 7"):
        assert run(good, cache, on_bad_image="skip", workers=workers) == first


def test_only_what_changed_is_read_again(good, cache, monkeypatch):
    before = {p.name: p for p in run(good, cache)}
    read = []
    real = index._examine
    monkeypatch.setattr(index, "_examine", lambda path: read.append(path) or real(path))
    picture(good / "good 1.png", 50, 60, seed=9)
    os.utime(good / "good 2.png", ns=(1, 1))
    picture(good / "new.png")
    after = {p.name: p for p in run(good, cache, workers=0)}
    assert sorted(map(os.path.basename, read)) == ["good 1.png", "good 2.png", "new.png"]
    assert (after["good 1.png"].width, after["good 1.png"].height) == (50, 60)
    assert after["good 1.png"].digest != before["good 1.png"].digest
    assert after["good 2.png"] == before["good 2.png"]


def test_a_damaged_index_is_made_anew(good, cache):
    first = run(good, cache)
    (file,) = cache.folder.glob("index-*.json")
    file.write_text(file.read_text()[:50])
    with pytest.warns(UserWarning, match="damaged"):
        assert run(good, cache) == first


def test_an_interrupt_keeps_what_was_read(good, cache, monkeypatch):
    real = index._examine
    monkeypatch.setattr(index, "_examine", lambda path: real(path) if "good 2" not in path else interrupt())
    with pytest.raises(KeyboardInterrupt):
        run(good, cache, workers=0)
    read = []
    monkeypatch.setattr(index, "_examine", lambda path: read.append(path) or real(path))
    assert len(run(good, cache, workers=0)) == 3
    assert len(read) == 1


def interrupt():
    raise KeyboardInterrupt


def test_pairs_are_judged_on_both_sides(tmp_path, cache):
    for name, size in {"same": (20, 30), "other": (20, 31), "tiny": (8, 8), "broken": (20, 20)}.items():
        picture(tmp_path / "a" / f"{name}.png", 20 if name != "tiny" else 8, 30 if name != "tiny" else 8)
        picture(tmp_path / "b" / f"{name}.png", *size, seed=1)
    (tmp_path / "b" / "broken.png").write_bytes(b"")
    picture(tmp_path / "a" / "lonely.png")
    picture(tmp_path / "b" / "alone.png")
    entries = Folder(str(tmp_path / "a"), str(tmp_path / "b")).find()
    with pytest.raises(UserError) as error:
        index_pictures(entries, cache=cache, min_size=16)
    text = str(error.value)
    assert "other.png: is 20x30 pixels, its target" in text
    assert "tiny.png: is too small" in text
    assert "broken.png: its target" in text
    assert "lonely.png: has no partner" in text
    assert "alone.png: is a target" in text
    with pytest.warns(UserWarning, match="Left out 5 of 6"):
        (pair,) = index_pictures(entries, cache=cache, min_size=16, on_bad_image="skip")
    assert pair.target_path == str(tmp_path / "b" / "same.png")


def test_the_digest_of_a_pair_changes_with_either_side(tmp_path, cache):
    def digest():
        (found,) = index_pictures(Folder(str(tmp_path / "a"), str(tmp_path / "b")).find(), cache=cache)
        return found.digest

    picture(tmp_path / "a" / "x.png", seed=1)
    picture(tmp_path / "b" / "x.png", seed=2)
    digests = [digest()]
    picture(tmp_path / "b" / "x.png", seed=3, width=40)
    os.utime(tmp_path / "b" / "x.png", ns=(1, 1))
    digests.append(digest())
    picture(tmp_path / "a" / "x.png", seed=4)
    os.utime(tmp_path / "a" / "x.png", ns=(1, 1))
    digests.append(digest())
    assert len(set(digests)) == 3


def test_a_file_that_is_gone_or_no_file_is_a_bad_file(tmp_path, cache, good):
    entries = [Entry(str(good / "good 0.png"), "good 0.png"), Entry(str(tmp_path / "gone.png"), "gone.png")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        entries.append(Entry(str(tmp_path / "pipe.png"), "pipe.png"))
    with pytest.raises(UserError, match=r"gone.png: cannot be read \(No such file") as error:
        index_pictures(entries, cache=cache)
    assert not hasattr(os, "mkfifo") or "pipe.png: is not a regular file" in str(error.value)
