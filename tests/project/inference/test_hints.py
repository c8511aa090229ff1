"""Colors, palettes and the hints file: what they may look like, and what can be wrong with them; what is done."""

import json
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from project.data.pairs import Hints, PaletteHints, SpatialHints
from project.inference.hints import (
    EXAMPLE,
    DoneLog,
    Hint,
    HintRequest,
    parse_color,
    parse_hints,
    parse_palette,
    parse_request,
)
from project.inference.image_files import list_inputs
from workbench.errors import UserError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def items(tmp_path):
    """Three images of unequal sides, the last one lying on its side in the file."""
    for name, (height, width) in {"a.png": (30, 50), "deep/b.png": (9, 7), "photo.jpg": (20, 40)}.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if name == "photo.jpg":
            exif[0x0112] = 6
        Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)).save(path, exif=exif)
    return list_inputs(tmp_path / "in", tmp_path / "out")


@pytest.fixture
def read(items, tmp_path):
    """Reads hints: as they are, or text."""

    def read(content, items=items):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "hints.json").write_text(text, encoding="utf-8-sig")
        return parse_hints(tmp_path / "hints.json", items)

    return read


def refusal(function, *arguments, **more):
    with pytest.raises(UserError) as caught:
        function(*arguments, **more)
    assert len(str(caught.value).splitlines()) <= 10
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "color"),
    [
        ("#ff8800", (255, 136, 0)),
        ("#F80", (255, 136, 0)),
        (" orange ", (255, 165, 0)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
        ([0, 128, 255], (0, 128, 255)),
    ],
)
def test_a_color_may_be_written_in_several_ways(written, color):
    assert parse_color(written) == color


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("ff8800", r"Did you mean #ff8800\?"),
        ("orang", r"Did you mean orange\?"),
        *((written, "not a color") for written in ("#12345", "#11223344", "rgb(300, 0, 0)", "", 7, None, {"r": 1})),
        *((written, "not a color") for written in ([1, 2], [0.5, 0.5, 0.5], [True, 0, 0], [0, 0, 256])),
    ],
)
def test_what_is_not_a_color_is_refused_with_a_hint(written, reason):
    with pytest.raises(ValueError, match=reason):
        parse_color(written)


@pytest.mark.parametrize(
    "text", ["#ff8800,#224466,white", " #f80 , rgb(34, 68, 102); white ", '["#ff8800", [34, 68, 102], "white"]']
)
def test_a_palette_is_a_list_of_colors(text):
    assert parse_palette(text) == ((255, 136, 0), (34, 68, 102), WHITE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "not a color"), ('["#ff8800"', "delimiter"), ("red,greeen", '"greeen" is not a color. Did you mean green?')],
)
def test_a_palette_of_the_wrong_form_is_refused_with_an_example(text, reason):
    message = refusal(parse_palette, text)
    assert reason in message
    assert '--palette "#ff8800,#224466,white"' in message


def test_points_are_read_in_all_forms_and_a_star_stands_for_images_without_an_entry(read, items):
    points = [{"x": 10, "y": 20.5, "color": "#ff0000"}, [49.9, 0, [0, 0, 255]]]
    assert read({"a.png": points}) == {"a.png": (Hint(10, 20.5, RED), Hint(49.9, 0, BLUE))}
    hints = read({"*": [[6, 8, "red"]], "a.png": [[1, 1, "blue"]]})
    assert hints == {"a.png": (Hint(1, 1, BLUE),), "deep/b.png": (Hint(6, 8, RED),), "photo.jpg": (Hint(6, 8, RED),)}
    assert set(read({"*": [[6, 8, "red"]], "a.png": []})) == {"deep/b.png", "photo.jpg"}
    assert read([[6, 8, "red"]], items=items[1:2]) == {"deep/b.png": (Hint(6, 8, RED),)}
    assert read({"photo.jpg": [[19, 39, "red"]]}), "a place in the upright image"
    items[0].source.write_text("words")  # a broken image is reported when its turn comes
    assert set(read({"a.png": [[1000, 1000, "red"]]})) == {"a.png"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a.png": [[1, 2, "red"]],\n "deep/b.png": [[1, 2 "red"]]}', "line 2 column 23"),
        ("", "line 1 column 1"),
        *((text, "hints.json: ") for text in ("3", '"red"', "null", "[" * 100_000, "1" * 5000)),
        ({"b.png": []}, '"b.png" is none of the images. Did you mean deep/b.png?'),
        ({"aa.png": []}, "Did you mean a.png?"),
        ([[6, 8, "red"]], "each of 3 images"),
        ({"photo.jpg": [[39, 19, "red"]]}, "39, 19 is outside the 20 x 40 pixels"),
        ({"a.png": [[50, 0, "red"]]}, '"a.png", point 1: 50, 0 is outside the 50 x 30 pixels'),
        ({"a.png": [[0, 0, "red"], [3, -1, "red"]]}, '"a.png", point 2: 3, -1 is outside'),
        ({"*": [[0, 0, "red"], [6, 9, "red"]]}, '"deep/b.png", point 2: 6, 9 is outside the 7 x 9 pixels'),
        ({"a.png": [[0, 0, "redd"]]}, '"a.png", point 1: "redd" is not a color. Did you mean red?'),
        ({"a.png": [[0, 0]]}, '"a.png", point 1: [0, 0] is not'),
        ({"a.png": ["red"]}, '"a.png", point 1: "red" is not'),
        ({"a.png": [{"x": 1, "color": "red", "Y": 2}]}, 'point 1: {"x": 1, "color": "red", "Y": 2} is not'),
        ({"a.png": [["1", 2, "red"]]}, 'point 1: "1" is not a number of pixels'),
        ({"a.png": [[1, True, "red"]]}, "point 1: true is not a number"),
        ('{"a.png": [[NaN, 2, "red"]]}', "point 1: NaN is not"),
        ('{"a.png": [[1' + "0" * 400 + ', 2, "red"]]}', "not a number of pixels"),
        ({"a.png": {"x": 1, "y": 2, "color": "red"}}, '"a.png" must have a list of points'),
        ('{"a.png": [], "a.png": [[1, 2, "red"]]}', '"a.png" is there twice'),
    ],
)
def test_a_mistake_is_named_with_image_and_entry(read, content, reason):
    message = refusal(read, content)
    assert reason in message
    assert "hints.json" in message
    assert EXAMPLE in message


def test_files_that_cannot_be_read(items, tmp_path):
    assert "No such file" in refusal(parse_hints, tmp_path / "hint.json", items)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\xff")
    assert "binary.json" in refusal(parse_hints, tmp_path / "binary.json", items)


HINT, OTHER = Hint(1, 2, RED), Hint(1, 2, BLUE)


def test_a_fingerprint_follows_from_what_an_image_gets_alone():
    requests = [
        HintRequest(),
        HintRequest(hints={"a.png": (HINT,)}),
        HintRequest(hints={"a.png": (OTHER,)}),
        HintRequest(hints={"a.png": (HINT, OTHER)}),
        HintRequest(hints={"a.png": (Hint(2, 2, RED),)}),
        HintRequest(palette=(HINT,)),
        HintRequest(size=0),
        HintRequest(hints={"a.png": (HINT,)}, size=0),
    ]
    fingerprints = [request.fingerprint("a.png") for request in requests]
    assert fingerprints[0] == ""
    assert len(set(fingerprints)) == len(fingerprints)
    assert HintRequest(hints={"a.png": (HINT,), "b.png": (OTHER,)}).fingerprint("a.png") == fingerprints[1]
    assert HintRequest(hints={"a.png": (HINT,)}).fingerprint("b.png") == ""


def test_a_palette_goes_to_every_image():
    request = parse_request(Namespace(hints=None, palette="#ff0000,blue", size=None), [])
    assert [hint.color for hint in request.of("any.png")] == [RED, BLUE]


NOTHING, POINTS, PALETTE = HintRequest(), HintRequest(hints={}), HintRequest(palette=(HINT,) * 3)


@pytest.mark.parametrize(
    ("trained", "request_", "reason"),
    [
        (None, POINTS, "--hints does not suit this network, which does not color"),
        (None, PALETTE, "does not color"),
        (None, HintRequest(size=0), "--size does not suit"),
        (Hints(), POINTS, "--hints does not suit this network, which was trained without hints"),
        (Hints(), PALETTE, "was trained without hints"),
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


def test_the_log_outlives_the_run_and_an_unfinished_output_is_not_done(items, tmp_path):
    (tmp_path / "out").mkdir()
    item, log = items[0], DoneLog(tmp_path / "out")
    log.record(item, "")
    assert list((tmp_path / "out").iterdir()) == [], "nothing was asked for"
    for fingerprint in ("one", "two"):
        item.target.write_text("of before")
        log.record(item, fingerprint)
        assert not item.target.exists(), "or it would pass for the output to come"
    item.target.write_text("new")
    again = DoneLog(tmp_path / "out")
    assert [again.matches("a.png", fingerprint) for fingerprint in ("two", "one", "")] == [True, False, False]
    assert again.matches("b.png", "")
    again.record(item, "two")
    assert item.target.exists()
    with log.path.open("a") as file:
        file.write('["b.png", "tw\n3\nnull\n[[], 1]\n')
    assert DoneLog(tmp_path / "out").matches("a.png", "two"), "a damaged log only costs work"
    log.path.write_bytes(b"\xff\xfe\xff")
    assert not DoneLog(tmp_path / "out").matches("a.png", "two")
