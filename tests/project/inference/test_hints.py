"""Colors, palettes and the hints file: what they may look like, and what can be wrong with them."""

import json
from argparse import Namespace

import pytest

from project.data.pairs import Hints, PaletteHints, Point, SpatialHints
from project.inference.hints import EXAMPLE, HintRequest, parse_color, parse_hints, parse_palette, parse_request
from workbench.errors import UserError

RED, BLUE, WHITE = (1, 0, 0), (0, 0, 1), (1, 1, 1)
NAMES = ["a.png", "deep/b.png", "photo.jpg"]


@pytest.fixture
def read(tmp_path):
    """Reads hints: as they are, or text."""

    def read(content, names=NAMES):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "hints.json").write_text(text, encoding="utf-8-sig")
        return parse_hints(tmp_path / "hints.json", names)

    return read


def refusal(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) <= 10
    return str(caught.value)


@pytest.mark.parametrize("written", ["orang", "ff8800", "#12345", "#11223344", "rgb(300, 0, 0)", "", 7, None])
def test_what_is_not_a_color_is_refused(written):
    with pytest.raises(ValueError, match=r"Did you mean orange\?" if written == "orang" else "not a color such as"):
        parse_color(written)


@pytest.mark.parametrize("text", ["#ff8800,#224466,white", " #F80 , rgb(34, 68, 102), white "])
def test_a_palette_is_a_list_of_colors_for_every_image(text):
    assert parse_palette(text) == ((1, 136 / 255, 0), (34 / 255, 68 / 255, 102 / 255), WHITE)
    request = parse_request(Namespace(hints=None, palette=text, size=None), [])
    assert [hint.color for hint in request.of("any.png")] == [*parse_palette(text)]
    message = refusal(parse_palette, f"{text},greeen")
    assert '"greeen" is not a color' in message and "Did you mean green?" in message
    assert '--palette "#ff8800,#224466,white"' in message


def point(x, y, color="red", **more):
    return {"x": x, "y": y, "color": color, **more}


def test_points_are_read_and_a_star_stands_for_images_without_an_entry(read):
    points = [point(10, 20.5, "#ff0000"), point(49.9, 0, "blue")]
    assert read({"a.png": points}) == {"a.png": (Point(10, 20.5, RED), Point(49.9, 0, BLUE))}
    every = (Point(6, 8, RED),)
    hints = read({"*": [point(6, 8)], "a.png": [point(1, 1, "blue")]})
    assert hints == {"a.png": (Point(1, 1, BLUE),), "deep/b.png": every, "photo.jpg": every}
    assert set(read({"*": [point(6, 8)], "a.png": []})) == {"deep/b.png", "photo.jpg"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a.png": [],\n "deep/b.png": [1 2]}', "line 2 column 19"),
        ("", "line 1 column 1"),
        *((text, "hints.json: ") for text in ("3", '"red"', "null", "1" * 5000)),
        ({"b.png": []}, '"b.png" is none of the images. Did you mean'),
        ([point(6, 8)], "each of 3 images"),
        ({"a.png": [point(0, 0, "redd")]}, '"a.png", point 1: "redd" is not a color'),
        ({"a.png": [point(0, 0), {"x": 1, "color": "red"}]}, '"a.png", point 2: {"x": 1, "color": "red"} is not of'),
        ({"a.png": ["red"]}, '"a.png", point 1: "red" is not'),
        ({"a.png": [point("left", 2)]}, '"a.png", point 1: could not convert'),
        ('{"a.png": [{"x": 1' + "0" * 400 + ', "y": 2, "color": "red"}]}', '"a.png", point 1: int too large'),
        ({"a.png": point(1, 2)}, '"a.png" must have a list of points'),
    ],
)
def test_a_mistake_is_named_with_image_and_entry(read, content, reason):
    message = refusal(read, content)
    assert reason in message
    assert "hints.json" in message
    assert EXAMPLE in message


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file" in refusal(parse_hints, tmp_path / "hint.json", NAMES)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\xff")
    assert "binary.json" in refusal(parse_hints, tmp_path / "binary.json", NAMES)


NOTHING, POINTS, PALETTE = HintRequest(), HintRequest(hints={}), HintRequest(palette=(Point(1, 2, RED),) * 3)


@pytest.mark.parametrize(
    ("trained", "request_", "reason"),
    [
        (None, POINTS, "--hints does not suit this network, which does not color"),
        (None, PALETTE, "does not color"),
        (None, HintRequest(size=0), "--size does not suit"),
        (Hints(), POINTS, "--hints does not suit this network, which was trained without hints"),
        (SpatialHints(), PALETTE, ": --hints FILE, as {"),
        (PaletteHints(colors=3), POINTS, '--palette "#ff8800'),
        (PaletteHints(colors=2), PALETTE, "at most 2 colors"),
        *((trained, NOTHING, None) for trained in (None, Hints(), SpatialHints(), PaletteHints(colors=3))),
        (Hints(), HintRequest(size=0), None),
        (SpatialHints(), POINTS, None),
        (PaletteHints(colors=3), PALETTE, None),
    ],
)
def test_hints_of_another_kind_than_in_training_are_refused(trained, request_, reason):
    if reason is None:
        request_.check(trained)
    else:
        assert reason in refusal(request_.check, trained)
