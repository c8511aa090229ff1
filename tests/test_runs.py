from __future__ import annotations

from pathlib import Path

import pytest

from project.errors import UserError
from project.runs import find_run, point_latest_at, start_run


def _save_checkpoint(run) -> None:
    run.last_checkpoint.parent.mkdir()
    run.last_checkpoint.write_bytes(b"weights")


def test_latest_leads_to_the_newest_run(tmp_path):
    first, second = start_run(tmp_path, "denoise"), start_run(tmp_path, "denoise")
    assert first.folder != second.folder, "also in the same second"
    for run in (first, second):
        point_latest_at(run)
        assert (tmp_path / "denoise" / "latest").resolve() == run.folder.resolve()
    _save_checkpoint(second)
    found = find_run(tmp_path, "denoise", "latest")
    assert (found.folder, found.resumed) == (second.folder, True)


def test_a_version_says_what_is_not_a_training_run(tmp_path):
    assert start_run(tmp_path, "denoise", "test").version.endswith("-test")


def test_latest_is_a_text_file_where_links_are_not_allowed(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("a required privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run = start_run(tmp_path, "denoise")
    point_latest_at(run)
    assert (tmp_path / "denoise" / "latest").read_text() == run.version
    _save_checkpoint(run)
    assert find_run(tmp_path, "denoise", "latest").folder == run.folder


def test_other_ranks_take_the_first_ones_folder(tmp_path, monkeypatch):
    run = start_run(tmp_path, "denoise")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert start_run(tmp_path, "denoise").folder == run.folder


def test_an_unknown_run_is_named_with_those_that_are_there(tmp_path):
    run, tested = start_run(tmp_path, "denoise"), start_run(tmp_path, "denoise", "test")
    _save_checkpoint(run)
    with pytest.raises(UserError, match=run.version) as caught:
        find_run(tmp_path, "denoise", "yesterday")
    assert tested.version not in str(caught.value), "nothing to go on from there"
    with pytest.raises(UserError, match="holds no run with a checkpoint"):
        find_run(tmp_path, "colour", "latest")


def test_a_run_without_a_checkpoint_cannot_be_resumed(tmp_path):
    point_latest_at(start_run(tmp_path, "denoise"))
    with pytest.raises(UserError, match="before its first checkpoint"):
        find_run(tmp_path, "denoise", "latest")


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".."])
def test_a_name_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="--name"):
        start_run(tmp_path, name)


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "denoise").write_text("")
    with pytest.raises(UserError, match="--runs_dir"):
        start_run(tmp_path, "denoise")


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--runs_dir"):
        start_run(tmp_path / "file" / "runs", "denoise")
