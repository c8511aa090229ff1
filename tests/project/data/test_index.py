"""Every bad file is named in one error; nothing is read twice; lists of images to leave out."""

import os
import struct

import numpy as np
import pytest
from PIL import Image

from project.data import images, index
from project.data.folder import find_images
from project.data.images import Entry
from project.data.index import index_images, read_exclusions, validate_images
from workbench.errors import UserError


def image(path, width=40, height=30, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def good(tmp_path):
    """A folder of three good images of 40 x 30 pixels."""
    for number in range(3):
        image(tmp_path / "images" / f"good {number}.png", seed=number)
    return tmp_path / "images"


def bomb():
    """A BMP of 50,000 pixels a side, by its header alone."""
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 50000, 50000, 1, 24, *[0] * 6)


def plant_bad_files(folder):
    """One of each kind; returns the reason that must be given for each."""
    image(folder / "cut.jpg", 400, 300)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:3000])
    (folder / "text.jpg").write_text("I am no image")
    (folder / "zero.PNG").write_bytes(b"")
    image(folder / "row.png", 40, 1)
    image(folder / "deep" / "small.png", 40, 15)
    (folder / "bomb.bmp").write_bytes(bomb())
    Image.fromarray(np.ones((40, 40), np.float32)).save(folder / "float.tiff")
    return {
        "cut.jpg": "truncated",
        "text.jpg": "not an image",
        "zero.PNG": "0 bytes",
        "row.png": "40x1",
        "deep/small.png": "40x15",
        "bomb.bmp": "decompression bomb",
        "float.tiff": "floating-point",
    }


def run(folder, cache, **options):
    return index_images(find_images(str(folder)), cache=cache, **{"min_size": 16, **options})


def test_good_images_are_described_upright(good, cache):
    image(good / "tag" / "tall.png", 20, 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 20)).save(good / "rotated.jpg", exif=exif)
    found = run(good, cache)
    assert [r.name for r in found] == ["good 0.png", "good 1.png", "good 2.png", "rotated.jpg", "tag/tall.png"]
    assert (found[4].width, found[4].height, found[4].tag) == (20, 50, "tag")
    assert (found[3].width, found[3].height) == (20, 60)
    assert found[4].path == str(good / "tag" / "tall.png")
    assert len({r.digest for r in found}) == 5


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
    assert len(run(good, cache, excluded=set(expected))) == 3  # nobody minds those that are left out


def test_skip_warns_with_every_name_and_the_second_pass_reads_nothing(good, cache, monkeypatch):
    expected = plant_bad_files(good)
    with pytest.warns(UserWarning, match="Left out 7 of 10") as warned:
        found = run(good, cache, on_bad_image="skip")
    assert [r.name for r in found] == ["good 0.png", "good 1.png", "good 2.png"]
    assert all(name in str(warned[0].message) for name in expected)
    assert len(warned) == 1  # Pillow's own warning of the bomb is not shown on top
    monkeypatch.setattr(index, "decode", lambda *_, **__: pytest.fail("decoded again"))
    with pytest.warns(UserWarning, match="Left out 7"):
        assert run(good, cache, on_bad_image="skip") == found


def test_only_what_changed_is_read_again_and_changes_the_digest_on_either_side(tmp_path, cache, monkeypatch):
    for name in "xyz":
        image(tmp_path / "a" / f"{name}.png", seed=1)
        image(tmp_path / "b" / f"{name}.png", seed=2)
    entries = find_images(str(tmp_path / "a"), str(tmp_path / "b"))
    before = {r.name: r for r in index_images(entries, cache=cache)}
    read, real = [], index._check
    monkeypatch.setattr(index, "_check", lambda path, masks: read.append(path) or real(path))
    changed = [image(tmp_path / "a" / "x.png", seed=9), image(tmp_path / "b" / "y.png", seed=9)]
    touched = tmp_path / "a" / "z.png"
    for path in (*changed, touched):
        os.utime(path, ns=(1, 1))
    after = {r.name: r for r in index_images(entries, cache=cache)}
    assert sorted(read) == sorted(map(str, [*changed, touched]))
    assert [after[name].digest != before[name].digest for name in ("x.png", "y.png", "z.png")] == [True, True, False]
    assert len({r.digest for r in after.values()}) == 3


def test_an_interrupt_keeps_what_was_read(good, cache, monkeypatch):
    read, real = [], index._check

    def interrupted(path, masks):
        read.append(path)
        if len(read) == 3:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(images, "usable_cores", lambda: 1)
    monkeypatch.setattr(index, "_check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(good, cache)
    assert len(run(good, cache)) == 3
    assert len(read) == 4 and read[3] == read[2]


def test_pairs_are_judged_on_both_sides(tmp_path, cache):
    for name, size in {"same": (20, 30), "other": (20, 31), "tiny": (8, 8), "broken": (20, 20)}.items():
        image(tmp_path / "a" / f"{name}.png", *((8, 8) if name == "tiny" else (20, 30)))
        image(tmp_path / "b" / f"{name}.png", *size, seed=1)
    (tmp_path / "b" / "broken.png").write_bytes(b"")
    image(tmp_path / "a" / "lonely.png")
    image(tmp_path / "b" / "alone.png")
    entries = find_images(str(tmp_path / "a"), str(tmp_path / "b"))
    found, bad = validate_images(entries, cache=cache, min_size=16)
    assert [record.target_path for record in found] == [str(tmp_path / "b" / "same.png")]
    reasons = dict(line.split(": ", 1) for line in bad)
    assert reasons["other.png"].startswith("is 20x30 pixels, its target")
    assert reasons["tiny.png"].startswith("is too small")
    assert reasons["broken.png"].startswith("its target") and "0 bytes" in reasons["broken.png"]
    assert "no target" in reasons["lonely.png"] and "is a target" in reasons["alone.png"]


def test_masks_are_checked_as_masks_also_where_they_were_read_as_images_before(tmp_path, cache):
    image(tmp_path / "a" / "x.png")
    image(tmp_path / "b" / "x.png")
    entries = find_images(str(tmp_path / "a"), str(tmp_path / "b"))
    assert validate_images(entries, cache=cache)[1] == []
    (bad,) = validate_images(entries, cache=cache, masks=True)[1]
    assert bad.startswith("x.png: its target") and "is no mask" in bad


def test_a_file_that_is_gone_is_a_bad_file_and_some_must_be_left(tmp_path, cache, good):
    entries = [Entry(str(good / "good 0.png"), "good 0.png"), Entry(str(tmp_path / "gone.png"), "gone.png")]
    with pytest.raises(UserError, match=r"gone.png: cannot be read \(No such file"):
        index_images(entries, cache=cache)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="None of the 1 images"):
        index_images(entries[1:], cache=cache, on_bad_image="skip")


ENTRIES = [Entry(f"/here/{name}", name) for name in ("cat/a.png", "b c.png", "ü.png", "#1, red.png", "d #2.png")]


@pytest.fixture
def exclude(tmp_path):
    """Writes a list, and reads it back."""

    def write_and_read(text, encoding="utf-8"):
        (tmp_path / "out.txt").write_text(text, encoding=encoding)
        return read_exclusions(str(tmp_path / "out.txt"), ENTRIES)

    return write_and_read


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat/a.png\n\n  ü.png  \n", {"cat/a.png", "ü.png"}),
        ("# none yet\n", set()),
        ("", set()),
        ("# dark\nb c.png  # a thumb\n#\n#1, red.png\nd #2.png\n  # end", {"b c.png", "#1, red.png", "d #2.png"}),
        ("file\nb c.png\n", {"b c.png"}),
        ('mse,file,note\n0.1,ü.png,x\n0.2,"#1, red.png",cat/a.png\n0.3,,\n', {"ü.png", "#1, red.png"}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_exclusions_are_names_with_comments_or_a_tables_column(exclude, text, names, encoding):
    assert exclude(text, encoding) == names


def test_unknown_names_get_the_nearest(exclude, tmp_path):
    with pytest.raises(UserError, match=r"names 9 images that are not there") as error:
        exclude("cat/a.jpg # dark\n" + "".join(f"nothing {n}\n" for n in range(8)))
    assert "cat/a.jpg Did you mean cat/a.png?" in str(error.value)
    assert "... and 4 more" in str(error.value)
    assert len(str(error.value).splitlines()) <= 10
    with pytest.raises(UserError, match=r"--data.exclude .*nothing.txt cannot be read"):
        read_exclusions(str(tmp_path / "nothing.txt"), ENTRIES)
