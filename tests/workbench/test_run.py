from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workbench.errors import UserError
from workbench.run import Run, find_run, latest_valid_checkpoint, point_latest_at, start_run


def save_checkpoint(run: Run) -> None:
    run.last_checkpoint.parent.mkdir()
    run.last_checkpoint.write_bytes(b"weights")


def refuse(*args, **kwargs):
    raise OSError("a required privilege is not held")


@pytest.mark.parametrize("links", [True, False])
def test_latest_leads_to_the_newest_run(tmp_path, monkeypatch, links):
    if not links:  # as on Windows: then it is a text file
        monkeypatch.setattr(Path, "symlink_to", refuse)
    first, second = start_run(tmp_path, "denoise"), start_run(tmp_path, "denoise")
    assert first.folder != second.folder, "also in the same second"
    assert start_run(tmp_path, "denoise", "test").version.endswith("-test")
    latest = tmp_path / "denoise" / "latest"
    for run in (first, second):
        point_latest_at(run)
        assert latest.resolve() == run.folder.resolve() if links else latest.read_text() == run.version
    save_checkpoint(second)
    found = find_run(tmp_path, "denoise", "latest")
    assert (found.folder, found.resumed) == (second.folder, True)


def test_other_ranks_use_the_folder_of_rank_0(tmp_path, monkeypatch):
    run = start_run(tmp_path, "denoise")
    assert run.first
    monkeypatch.setenv("LOCAL_RANK", "1")
    other = start_run(tmp_path, "denoise")
    assert (other.folder, other.first) == (run.folder, False)


def test_a_job_that_slurm_requeues_continues_in_its_folder(tmp_path, monkeypatch):
    def start(number: str, kind: str = "") -> Run:
        for name, value in {"NTASKS": "1", "JOB_ID": number, "STEP_ID": "0", "PROCID": "0"}.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        return start_run(tmp_path, "denoise", kind)

    first, other = start("7"), start("8")
    assert first.folder != other.folder
    unsaved = start("7")
    assert (unsaved.folder, unsaved.resumed) == (first.folder, False), "nothing to resume from: it starts over there"
    save_checkpoint(first)
    point_latest_at(first)  # the folder by another name, which would win by the alphabet
    again = start("7")
    assert (again.folder, again.resumed) == (first.folder, True)
    assert start("7", "test").folder != first.folder


def test_a_run_that_cannot_be_resumed_is_named_with_those_that_can(tmp_path):
    run, tested = start_run(tmp_path, "denoise"), start_run(tmp_path, "denoise", "test")
    point_latest_at(run)
    with pytest.raises(UserError, match=r"no run 'latest'.*\n.*holds no run with a checkpoint"):
        find_run(tmp_path, "denoise", "latest")
    save_checkpoint(run)
    with pytest.raises(UserError, match=run.version) as caught:
        find_run(tmp_path, "denoise", "yesterday")
    assert tested.version not in str(caught.value), "it has nothing to resume from"


@pytest.mark.parametrize("name", ["../out", "a/b", "", "..", "taken"])
def test_a_name_that_cannot_be_a_folder(tmp_path, name):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="--name"):
        start_run(tmp_path, name)
    with pytest.raises(UserError, match="--runs_dir"):
        start_run(tmp_path / "taken" / "runs", "denoise")


@pytest.fixture
def saved(tmp_path) -> Run:
    run = Run(tmp_path, "denoise", "1", resumed=True)
    run.last_checkpoint.parent.mkdir(parents=True)
    for name, step in (("previous", 20), ("last", 30)):
        content = {"global_step": step, "state_dict": {"w": torch.zeros(5000)}, "exact_resume": {"rows": step + 3}}
        torch.save(content, run.last_checkpoint.with_name(f"{name}.ckpt"))
    return run


def test_the_last_checkpoint_is_used(saved, capsys):
    assert latest_valid_checkpoint(saved) == (saved.last_checkpoint, 30, 33)
    torch.save({"global_step": 30}, saved.last_checkpoint)
    assert latest_valid_checkpoint(saved)[2] is None
    saved.last_checkpoint.unlink()
    assert latest_valid_checkpoint(saved)[1] == 20
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("damage", [0, 0.5, 0.999, "a changed bit"])
def test_the_previous_one_is_used_where_the_last_is_damaged(saved, capsys, damage):
    content = bytearray(saved.last_checkpoint.read_bytes())
    if damage == "a changed bit":
        content[len(content) // 2] ^= 1
    else:
        content = content[: int(damage * len(content))]
    saved.last_checkpoint.write_bytes(content)
    assert latest_valid_checkpoint(saved)[1:] == (20, 23)
    printed = capsys.readouterr().err
    assert "last.ckpt cannot be read" in printed and "previous.ckpt, step 20" in printed


def test_where_none_can_be_read_the_way_out_is_named(saved):
    for path in saved.checkpoints:
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"last\.ckpt.*\n.*previous\.ckpt(.|\n)*init_from"):
        latest_valid_checkpoint(saved)
