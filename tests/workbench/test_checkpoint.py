"""Checkpoint to model: nothing but the file, and short errors for every file that is none; atomic writing."""

from __future__ import annotations

import errno
import io
import os
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from torch import nn

from workbench.checkpoint import AtomicCheckpointIO, load_model, read_checkpoint, save_plain_hyperparameters
from workbench.errors import UserError


class Tiny(LightningModule):
    """A model whose layer depends on its arguments."""

    def __init__(self, layer: nn.Module, factor: float = 1.0, init_from: str | None = None):
        super().__init__()
        if init_from is not None:
            raise AssertionError("must not look for the file that the weights began with")
        self.layer, self.factor, self.dropout = layer, factor, nn.Dropout(0.5)

    def forward(self, x):
        return self.factor * self.dropout(self.layer(x))


def config(data=None, **arguments):
    layer = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 2, "out_channels": 3, "kernel_size": 5}}
    model = {"class_path": f"{__name__}.Tiny", "init_args": {"layer": layer, "factor": 2.5, **arguments}}
    return {"model": model, "data": data or {"channels": 2}, "seed_everything": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best.ckpt"


def save(path, settings=None, **changes):
    model = Tiny(nn.Conv2d(2, 3, 5), 2.5)
    text = yaml.safe_dump(settings or config())
    torch.save({"state_dict": model.state_dict(), "config": text, "optimizer_states": [{}], **changes}, path)
    return model.eval()


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_model(path)
    message = str(caught.value)
    assert len(message.splitlines()) <= 10
    assert str(path) in message
    return message


@pytest.mark.parametrize("data_class", [None, "mine.Data"])
def test_model_and_configuration_come_back_from_the_file_alone(path, data_class):
    section = {"class_path": data_class, "init_args": {"channels": 2}} if data_class else None
    original = save(path, config(section, init_from="gone.ckpt"))
    model, checkpoint = load_model(path), read_checkpoint(path)
    image = torch.rand(1, 2, 9, 11, generator=torch.Generator().manual_seed(0))
    assert type(model).__name__ == "Tiny" and not model.training
    assert torch.equal(model(image), original(image))
    assert checkpoint.config == config(init_from="gone.ckpt") and checkpoint.data_class == data_class
    assert torch.equal(load_model(checkpoint).layer.weight, checkpoint.weights["layer.weight"])


def test_a_path_that_is_no_file_names_checkpoints_nearby(path, tmp_path):
    assert "Use a checkpoint that `fit` wrote" in refusal(path)
    (tmp_path / "checkpoints").mkdir()
    save(tmp_path / "checkpoints" / "last.ckpt")
    expected = f"Did you mean: {tmp_path / 'checkpoints' / 'last.ckpt'}"
    assert expected in refusal(tmp_path / "checkpoints" / "best.ckpt")
    assert expected in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04 cut", pickle.dumps({"state_dict": 1}, protocol=2), None])
def test_a_file_that_is_no_checkpoint(path, content):
    save(path)
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    assert ("cut short" if content is None else "checkpoint") in refusal(path)


GONE = config()
GONE["model"]["class_path"] = "nowhere.Gone"


@pytest.mark.parametrize(
    ("settings", "changes", "expected"),
    [
        *((None, {"config": text}, "which model") for text in (None, "", "data: {}", "model: 3", "a: [", 7)),
        (None, {"extra": nn.Linear(1, 1)}, "for safety"),
        (None, {"state_dict": Tiny(nn.Conv2d(2, 4, 5)).state_dict()}, "layer.weight"),
        (GONE, {}, "No module named 'nowhere'"),
        (config(width=3), {}, "Option 'width' is not accepted\n"),
    ],
)
def test_a_checkpoint_that_cannot_be_used(path, settings, changes, expected):
    save(path, settings, **changes)
    assert expected in refusal(path)


def test_only_plain_hyperparameters_are_saved_in_a_script():
    plain = {"a": [1, 2.0, None, "x", True], "b": {"c": (1, 2)}, "none": None}
    module = LightningModule()
    others = {"list": {"a": [nn.ReLU()]}, "class": torch.optim.Adam, "tensor": torch.zeros(1), "self": module}
    save_plain_hyperparameters(module, plain | others)
    assert dict(module.hparams) == plain


def test_bare_weights_are_no_checkpoint(path):
    torch.save(nn.Linear(2, 2).state_dict(), path)
    assert "state_dict" in refusal(path)


@pytest.fixture
def last(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "last.ckpt"


def write(step: int, path: Path, **more: object) -> None:
    AtomicCheckpointIO().save_checkpoint({"global_step": step, **more}, path)


def steps(last: Path) -> dict[str, int]:
    return {path.name: torch.load(path, weights_only=True)["global_step"] for path in last.parent.iterdir()}


def test_the_one_before_the_last_is_kept(last):
    for step in (1, 2, 3):
        write(step, last)
    write(3, last.with_name("best.ckpt"))
    assert steps(last) == {"best.ckpt": 3, "last.ckpt": 3, "previous.ckpt": 2}
    last.write_bytes(last.read_bytes()[:-40])
    write(4, last)
    assert steps(last) == {"best.ckpt": 3, "last.ckpt": 4, "previous.ckpt": 2}, "a damaged one is not kept"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("not the disk"), RuntimeError("nor that")])
def test_a_failed_write_leaves_the_old_one(last, monkeypatch, error):
    def half(content, file):
        file.write(b"half")
        raise error

    write(1, last)
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", half)
        with pytest.raises(type(error)):
            write(2, last)
    assert torch.load(last, weights_only=True)["global_step"] == 1
    write(3, last)
    assert steps(last) == {"last.ckpt": 3, "previous.ckpt": 1}


def test_a_full_disk_is_named_and_leaves_the_old_one(last, monkeypatch):
    """As torch.save really fails when the file takes no more: with an error of its own."""
    opened = Path.open

    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > 600:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def open_full(path, mode="r", **options):
        return Full() if mode == "wb" else opened(path, mode, **options)

    write(1, last)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(UserError, match=r"last\.ckpt could not be .*No space(.|\n)*--resume latest"):
            write(2, last, state_dict={"w": torch.zeros(1000)})
    assert steps(last) == {"last.ckpt": 1}


def test_it_is_on_the_disk_before_it_takes_its_place(last, monkeypatch):
    calls = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("sync"), sync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (calls.append(Path(target).name), replace(self, target)))
    write(1, last)
    assert calls[:2] == ["sync", "last.ckpt"]
