from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from workbench.checkpoint import AtomicCheckpointIO, atomic_write_text
from workbench.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "last.ckpt"


def save(step: int, path: Path, **more: object) -> None:
    AtomicCheckpointIO().save_checkpoint({"global_step": step, **more}, path)


def step_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


def test_the_one_before_the_last_is_kept(path):
    for step in (1, 2, 3):
        save(step, path)
    assert (step_of(path), step_of(path.with_name("previous.ckpt"))) == (3, 2)
    save(3, path.with_name("best.ckpt"))
    assert {found.name for found in path.parent.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    path.write_bytes(path.read_bytes()[:-40])
    save(4, path)
    assert (step_of(path), step_of(path.with_name("previous.ckpt"))) == (4, 2), "a damaged one is not kept"


FULL = RuntimeError("PytorchStreamWriter failed writing file data/0")
FULL.__context__ = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("not the disk"), RuntimeError("nor that"), FULL])
def test_a_failed_write_leaves_the_old_one(path, monkeypatch, error):
    def half(content, file):
        file.write(b"half")
        raise error

    save(1, path)
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", half)
        with pytest.raises(UserError if error is FULL else type(error)) as caught:
            save(2, path)
    if error is FULL:
        text = str(caught.value)
        assert text.startswith("The disk is full") and str(path) in text and "--resume latest" in text
        assert [found.name for found in path.parent.iterdir()] == ["last.ckpt"]
    assert step_of(path) == 1
    save(3, path)
    assert {found.name for found in path.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_torchs_own_error_for_a_full_disk_is_understood(path, monkeypatch):
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
        save(2, path, state_dict={"w": torch.zeros(1000)})


def test_it_is_on_the_disk_before_it_takes_its_place(path, monkeypatch):
    calls = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("sync"), sync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (calls.append(Path(target).name), replace(self, target)))
    save(1, path)
    assert calls[:2] == ["sync", "last.ckpt"]


def test_a_text_is_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    atomic_write_text(path, "one: ü\n")

    def killed(self, target):
        raise InterruptedError

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(InterruptedError):
        atomic_write_text(path, "two")
    assert path.read_text(encoding="utf-8") == "one: ü\n"
