from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from workbench.checkpoint_io import AtomicCheckpointIO, atomic_write_text
from workbench.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "last.ckpt"


def _step(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


def _break_off(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def half(content, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr("torch.save", half)


def test_the_one_before_the_last_is_kept(path):
    for step in (1, 2, 3):
        AtomicCheckpointIO().save_checkpoint({"global_step": step}, path)
    assert (_step(path), _step(path.with_name("previous.ckpt"))) == (3, 2)
    AtomicCheckpointIO().save_checkpoint({"global_step": 3}, path.with_name("best.ckpt"))
    assert {found.name for found in path.parent.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}


def test_a_damaged_last_one_does_not_take_the_place_of_a_whole_one(path):
    for step in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"global_step": step}, path)
    path.write_bytes(path.read_bytes()[:-40])
    AtomicCheckpointIO().save_checkpoint({"global_step": 3}, path)
    assert (_step(path), _step(path.with_name("previous.ckpt"))) == (3, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no disk's fault"), RuntimeError("nor that")])
def test_one_that_is_broken_off_leaves_the_old_one(path, monkeypatch, error):
    AtomicCheckpointIO().save_checkpoint({"global_step": 1}, path)
    with monkeypatch.context() as patch:
        _break_off(patch, error)
        with pytest.raises(type(error)):
            AtomicCheckpointIO().save_checkpoint({"global_step": 2}, path)
    assert _step(path) == 1
    AtomicCheckpointIO().save_checkpoint({"global_step": 3}, path)
    assert {found.name for found in path.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_a_full_disk_is_told_and_leaves_the_old_one(path, monkeypatch):
    AtomicCheckpointIO().save_checkpoint({"global_step": 1}, path)
    with monkeypatch.context() as patch:
        error = RuntimeError("PytorchStreamWriter failed writing file data/0")
        error.__context__ = OSError(errno.ENOSPC, "No space left on device")
        _break_off(patch, error)
        with pytest.raises(UserError, match="The disk is full") as caught:
            AtomicCheckpointIO().save_checkpoint({"global_step": 2}, path)
    assert str(path) in str(caught.value) and "--resume latest" in str(caught.value)
    assert [found.name for found in path.parent.iterdir()] == ["last.ckpt"] and _step(path) == 1


def test_torchs_own_words_for_a_full_disk_are_understood(path, monkeypatch):
    """As torch.save really fails when the file takes no more."""
    opened = Path.open

    class Full:
        def __init__(self, file):
            self.file, self.left = file, 600

        def write(self, data):
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Full(opened(self, *a, **k)))
    with pytest.raises(UserError, match="The disk is full"):
        AtomicCheckpointIO().save_checkpoint({"global_step": 2, "state_dict": {"w": torch.zeros(1000)}}, path)


def test_it_is_on_the_disk_before_it_takes_its_place(path, monkeypatch):
    calls = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("sync"), sync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (calls.append(Path(target).name), replace(self, target)))
    AtomicCheckpointIO().save_checkpoint({"global_step": 1}, path)
    assert calls[:2] == ["sync", "last.ckpt"]


def test_a_text_is_written_whole(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    atomic_write_text(path, "one: ü\n")
    assert path.read_text(encoding="utf-8") == "one: ü\n"

    def killed(self, target):
        raise InterruptedError

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(InterruptedError):
        atomic_write_text(path, "two")
    assert path.read_text(encoding="utf-8") == "one: ü\n"
