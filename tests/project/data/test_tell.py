"""What the user should know is printed, once for all processes, whatever logging is set to."""

import logging

from lightning.pytorch.utilities import rank_zero_only

from project.data.tell import tell


def test_it_is_printed_whatever_logging_says(capsys, monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    tell("2 images were left aside")
    assert capsys.readouterr().out == "2 images were left aside\n"


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    tell("2 images were left aside")
    assert capsys.readouterr().out == ""
