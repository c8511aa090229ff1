from __future__ import annotations

import pytest
import torch
from workbench.resume import newest_whole

from workbench.errors import UserError
from workbench.run import Run


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run(tmp_path, "denoise", "1", resumed=True)
    run.last_checkpoint.parent.mkdir(parents=True)
    for name, step in (("previous", 20), ("last", 30)):
        content = {"global_step": step, "state_dict": {"w": torch.zeros(5000)}, "place": {"rows": step + 3}}
        torch.save(content, run.last_checkpoint.with_name(f"{name}.ckpt"))
    return run


def test_the_last_one_is_taken(run, capsys):
    found = newest_whole(run)
    assert (found.path, found.step, found.rows) == (run.last_checkpoint, 30, 33)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_the_one_before_it_is_taken_where_it_is_cut_short(run, capsys, share):
    content = run.last_checkpoint.read_bytes()
    run.last_checkpoint.write_bytes(content[: int(share * len(content))])
    found = newest_whole(run)
    assert (found.path.name, found.step, found.rows) == ("previous.ckpt", 20, 23)
    told = capsys.readouterr().err
    assert "last.ckpt cannot be read" in told and "previous.ckpt, step 20" in told


def test_a_changed_bit_counts_as_damage(run):
    content = bytearray(run.last_checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    run.last_checkpoint.write_bytes(content)
    assert newest_whole(run).step == 20


def test_a_checkpoint_of_before_says_nothing_of_rows(run):
    torch.save({"global_step": 30}, run.last_checkpoint)
    assert newest_whole(run).rows is None


def test_where_none_can_be_read_the_way_out_is_told(run):
    for path in run.checkpoints:
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"last\.ckpt.*\n.*previous\.ckpt") as caught:
        newest_whole(run)
    assert "init_from" in str(caught.value)
