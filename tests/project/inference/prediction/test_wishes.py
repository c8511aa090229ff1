"""What was asked for, and what an answer was made with."""

import pytest

from project.inference.prediction.hints_file import Hint
from project.inference.prediction.wishes import Record, Wishes, read_wishes

RED, BLUE = Hint(1, 2, (255, 0, 0)), Hint(1, 2, (0, 0, 255))


def test_a_mark_follows_from_what_a_picture_gets_alone():
    none = Wishes()
    marks = [
        none.mark("a.png"),
        Wishes(hints={"a.png": (RED,)}).mark("a.png"),
        Wishes(hints={"a.png": (BLUE,)}).mark("a.png"),
        Wishes(hints={"a.png": (RED, BLUE)}).mark("a.png"),
        Wishes(hints={"a.png": (Hint(2, 2, RED.color),)}).mark("a.png"),
        Wishes(palette=(RED,)).mark("a.png"),
        Wishes(size=0).mark("a.png"),
        Wishes(hints={"a.png": (RED,)}, size=0).mark("a.png"),
    ]
    assert marks[0] == ""
    assert len(set(marks)) == len(marks)
    assert Wishes(hints={"a.png": (RED,), "b.png": (BLUE,)}).mark("a.png") == marks[1]
    assert Wishes(hints={"a.png": (RED,)}).mark("b.png") == ""


def test_nothing_given_is_nothing_asked_for():
    assert not Wishes().are_any
    for wishes in (Wishes(hints={}), Wishes(palette=(RED,)), Wishes(size=0)):
        assert wishes.are_any


def test_a_palette_goes_to_every_picture():
    wishes = read_wishes(None, "#ff0000,blue", None, [])
    assert [hint.color for hint in wishes.of("any.png")] == [(255, 0, 0), (0, 0, 255)]


def test_the_record_outlives_the_run_and_the_last_mark_counts(tmp_path):
    record = Record.of(tmp_path)
    assert record.fits("a.png", "")
    for mark in ("one", "two"):
        with record.writing("a.png", mark):
            assert not Record.of(tmp_path).fits("a.png", mark)
    again = Record.of(tmp_path)
    assert again.fits("a.png", "two")
    assert not again.fits("a.png", "one")
    assert not again.fits("a.png", "")
    assert again.fits("b.png", "")


def test_an_answer_that_was_not_finished_fits_nothing(tmp_path):
    record = Record.of(tmp_path)
    with record.writing("a.png", "one"):
        pass
    with pytest.raises(KeyboardInterrupt), record.writing("a.png", "two"):
        raise KeyboardInterrupt
    for mark in ("", "one", "two"):
        assert not Record.of(tmp_path).fits("a.png", mark)


def test_without_wishes_there_is_no_file(tmp_path):
    with Record.of(tmp_path).writing("a.png", ""):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_only_costs_work(tmp_path):
    record = Record.of(tmp_path)
    with record.writing("a.png", "one"):
        pass
    with record.path.open("a") as file:
        file.write('["b.png", "tw\n3\nnull\n[[], 1]\n')
    assert Record.of(tmp_path).fits("a.png", "one")
    record.path.write_bytes(b"\xff\xfe\xff")
    assert not Record.of(tmp_path).fits("a.png", "one")
