"""Colors as people write them."""

import json

import pytest

from project.inference.prediction.colors import parse_color, read_palette
from workbench.errors import UserError


@pytest.mark.parametrize(
    ("written", "color"),
    [
        ("#ff8800", (255, 136, 0)),
        ("#F80", (255, 136, 0)),
        (" orange ", (255, 165, 0)),
        ("RebeccaPurple", (102, 51, 153)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
        ([0, 128, 255], (0, 128, 255)),
    ],
)
def test_a_color_may_be_written_in_several_ways(written, color):
    assert parse_color(written) == color


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("ff8800", "did you mean #ff8800?"),
        ("orang", "did you mean orange?"),
        ("#12345", "no color"),
        ("#11223344", "transparency"),
        ("rgb(300, 0, 0)", "0 to 255"),
        ("", "no color"),
        ([1, 2], "three whole numbers"),
        ([0.5, 0.5, 0.5], "three whole numbers"),
        ([True, 0, 0], "three whole numbers"),
        ([0, 0, 256], "three whole numbers"),
        (7, "no color"),
        (None, "no color"),
        ({"r": 1}, "no color"),
    ],
)
def test_what_is_no_color_is_refused_with_a_hint(written, told):
    with pytest.raises(ValueError, match=told.replace("?", r"\?")):
        parse_color(written)


PALETTE = ((255, 136, 0), (34, 68, 102), (255, 255, 255))


@pytest.mark.parametrize(
    "text",
    [
        "#ff8800,#224466,white",
        " #f80 , rgb(34, 68, 102); white ",
        '["#ff8800", [34, 68, 102], "white"]',
        "#ff8800\n#224466\nwhite\n",
    ],
)
def test_a_palette_is_a_list_or_a_file_with_one(text, tmp_path):
    assert read_palette(text) == PALETTE
    (tmp_path / "palette").write_text(text, encoding="utf-8-sig")
    assert read_palette(str(tmp_path / "palette")) == PALETTE


def test_a_single_color_is_a_palette():
    for text in ("#ff8800", '"#ff8800"', "[255, 136, 0]", '["#ff8800"]', "rgb(255, 136, 0)"):
        assert read_palette(text) == (PALETTE[0],)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no color"),
        ("[]", "no color"),
        ('["#ff8800"', "no JSON list"),
        ('{"a": "red"}', "not a list"),
        ("red,greeen", 'color 2: "greeen" is no color: did you mean green?'),
        ("palettes/mine.json", "no such file"),
        (json.dumps(["nothing"] * 30), "... and 24 more"),
    ],
)
def test_a_palette_of_the_wrong_form_is_refused_with_an_example(text, told):
    with pytest.raises(UserError) as caught:
        read_palette(text)
    message = str(caught.value)
    assert told in message
    assert '--palette "#ff8800,#224466,white"' in message
    assert len(message.splitlines()) <= 10


def test_a_palette_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "palette.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="cannot be read as text"):
        read_palette(str(tmp_path / "palette.png"))
