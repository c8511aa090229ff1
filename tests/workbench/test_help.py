from __future__ import annotations

import pytest

from project.__main__ import main


def _help(capsys, *words: str) -> list[str]:
    with pytest.raises(SystemExit) as stop:
        main([*words])
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_the_help_of_a_command_names_what_people_change(capsys):
    lines = _help(capsys, "fit", "--help")
    text = "\n".join(lines)
    for key in (
        "--config",
        "--resume",
        "--data.root",
        "--trainer.max_steps",
        "--early_stopping.patience",
        "--watch.on_fault",
    ):
        assert f"  {key} " in text or f"  {key}\n" in text, key
    assert "images, of any depth" in text, "the text of a docstring"
    assert "[0.999]" in text, "a default"
    assert "==SUPPRESS==" not in text
    assert len(lines) < 165 and max(map(len, lines)) <= 120

    everything = _help(capsys, "fit", "--help", "--all")
    assert len(everything) > 2 * len(lines)


def test_the_help_of_a_class_names_its_arguments(capsys):
    lines = _help(capsys, "fit", "--model.help", "project.models.ImageRestorer")
    text = "\n".join(lines)
    assert len(lines) < 100, "without a list of every class that could be named"
    assert "--model.init_args.l1" in text or "--model.l1" in text
    assert "Weight of the penalty" in text
