"""The hints file: what it may look like, and everything that can be wrong with it."""

import json

import numpy as np
import pytest
from PIL import Image

from project.inference.prediction.hints_file import EXAMPLE, Hint, read_hints
from project.inference.prediction.jobs import plan
from workbench.errors import UserError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def jobs(tmp_path):
    """Three images of unequal sides, the last one lying on its side in the file."""
    for name, (height, width) in {"a.png": (30, 50), "deep/b.png": (9, 7), "photo.jpg": (20, 40)}.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if name == "photo.jpg":
            exif[0x0112] = 6
        Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)).save(path, exif=exif)
    return plan(tmp_path / "in", tmp_path / "out")


@pytest.fixture
def read(jobs, tmp_path):
    """Reads hints: as they are, or text."""

    def read(content, jobs=jobs):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "hints.json").write_text(text, encoding="utf-8-sig")
        return read_hints(tmp_path / "hints.json", jobs)

    return read


def refusal(read, content, **more):
    with pytest.raises(UserError) as caught:
        read(content, **more)
    message = str(caught.value)
    assert "hints.json" in message
    assert len(message.splitlines()) <= 10
    return message


def test_points_are_read_in_both_forms(read):
    points = [{"x": 10, "y": 20.5, "color": "#ff0000"}, [49.9, 0, [0, 0, 255]], {"color": "#fff", "y": 1, "x": 2}]
    expected = (Hint(10, 20.5, RED), Hint(49.9, 0, BLUE), Hint(2, 1, WHITE))
    assert read({"a.png": points}) == {"a.png": expected}


def test_a_star_stands_for_pictures_without_an_entry_of_their_own(read):
    hints = read({"*": [[6, 8, "red"]], "a.png": [[1, 1, "blue"]]})
    assert hints == {"a.png": (Hint(1, 1, BLUE),), "deep/b.png": (Hint(6, 8, RED),), "photo.jpg": (Hint(6, 8, RED),)}


def test_an_empty_list_of_its_own_keeps_the_star_away(read):
    assert set(read({"*": [[6, 8, "red"]], "a.png": []})) == {"deep/b.png", "photo.jpg"}


def test_a_list_will_do_for_a_single_picture(read, jobs):
    assert read([[6, 8, "red"]], jobs=jobs[1:2]) == {"deep/b.png": (Hint(6, 8, RED),)}
    assert "there are 3" in refusal(read, [[6, 8, "red"]])


def test_paths_may_be_written_as_windows_and_shells_write_them(read):
    assert set(read({"deep\\b.png": [[0, 0, "red"]], "./a.png": [[0, 0, "red"]]})) == {"deep/b.png", "a.png"}


def test_places_are_those_of_the_upright_picture(read):
    assert read({"photo.jpg": [[19, 39, "red"]]})
    assert "outside the image of 20 x 40 pixels" in refusal(read, {"photo.jpg": [[39, 19, "red"]]})


def test_what_is_no_json_is_told_with_its_place(read):
    message = refusal(read, '{"a.png": [[1, 2, "red"]],\n "deep/b.png": [[1, 2 "red"]]}')
    assert "line 2, column 23" in message
    assert '"deep/b.png": [[1, 2 "red"]]}' in message
    assert EXAMPLE in message
    assert "line 1, column 1" in refusal(read, "")
    for text in ("3", '"red"', "null", "[" * 100_000, "1" * 5000):
        assert EXAMPLE in refusal(read, text)


def test_a_missing_file_is_told_with_the_nearest_name(jobs, tmp_path):
    (tmp_path / "hints.json").write_text("{}")
    with pytest.raises(UserError, match=r"no such file.\nDid you mean .*hints.json"):
        read_hints(tmp_path / "hint.json", jobs)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\xff")
    with pytest.raises(UserError, match="cannot be read as text"):
        read_hints(tmp_path / "binary.json", jobs)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"b.png": []}, '"b.png" is none of the images; did you mean "deep/b.png"?'),
        ({"aa.png": []}, 'did you mean "a.png"?'),
        ({"a.png": [[50, 0, "red"]]}, '"a.png", point 1: x 50, y 0 is outside the image of 50 x 30 pixels'),
        ({"a.png": [[0, 0, "red"], [3, -1, "red"]]}, '"a.png", point 2: x 3, y -1 is outside'),
        ({"*": [[0, 0, "red"], [6, 9, "red"]]}, '"*", point 2: x 6, y 9 is outside deep/b.png of 7 x 9 pixels'),
        ({"a.png": [[0, 0, "redd"]]}, '"a.png", point 1: "redd" is no color: did you mean red?'),
        ({"a.png": [[0, 0]]}, '"a.png", point 1: [0, 0] is no point'),
        ({"a.png": ["red"]}, '"a.png", point 1: "red" is no point'),
        ({"a.png": [{"x": 1, "color": "red", "Y": 2}]}, 'point 1: y is missing and there is no key "Y"'),
        ({"a.png": [["1", 2, "red"]]}, 'point 1: x is "1", which is no number of pixels'),
        ({"a.png": [[1, True, "red"]]}, "point 1: y is true, which is no number"),
        ('{"a.png": [[NaN, 2, "red"]]}', "point 1: x is NaN"),
        ('{"a.png": [[Infinity, 2, "red"]]}', "point 1: x is Infinity"),
        ('{"a.png": [[1' + "0" * 400 + ', 2, "red"]]}', "no number of pixels"),
        ({"a.png": {"x": 1, "y": 2, "color": "red"}}, '"a.png": must be a list of points'),
        ('{"a.png": [], "a.png": [[1, 2, "red"]]}', '"a.png" is there twice'),
        ({"a.png": [], "./a.png": []}, "the same image as another entry"),
    ],
)
def test_each_mistake_names_picture_and_entry(read, content, told):
    assert told in refusal(read, content)


def test_all_mistakes_are_told_at_once_and_long_lists_are_cut(read):
    message = refusal(read, {"a.png": [[99, 0, "red"], [0, 0, "redd"]], "none.png": []})
    assert "3 mistakes" in message
    for part in ("x 99, y 0", '"redd"', '"none.png"'):
        assert part in message
    assert "... and 13 more" in refusal(read, {"a.png": [[99, 0, "red"]] * 20})


def test_a_broken_picture_is_left_for_its_own_turn(read, jobs):
    jobs[0].source.write_text("words")
    assert set(read({"a.png": [[1000, 1000, "red"]]})) == {"a.png"}
