"""Checkpoint to model: nothing but the file, and short errors for every file that is none."""

import pickle

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch import nn

from project.models import ImageRestorer
from workbench.checkpoint import is_plain, load_model, read_checkpoint, require
from workbench.errors import UserError


class Tiny(LightningModule):
    """A model whose layer depends on its arguments."""

    def __init__(self, layer: nn.Module, factor: float = 1.0, init_from: str | None = None):
        super().__init__()
        if init_from is not None:
            raise AssertionError("must not look for the file that the weights began with")
        self.layer = layer
        self.factor = factor
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.factor * self.dropout(self.layer(x))


def config(**arguments):
    layer = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 2, "out_channels": 3, "kernel_size": 5}}
    model = {"class_path": f"{__name__}.Tiny", "init_args": {"layer": layer, "factor": 2.5, **arguments}}
    return {"model": model, "data": {"channels": 2}, "seed_everything": 1}


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


def test_the_model_comes_back_from_the_file_alone(tmp_path):
    original = save(tmp_path / "best.ckpt", config(init_from="gone.ckpt"))
    model = load_model(tmp_path / "best.ckpt")
    image = torch.rand(1, 2, 9, 11)
    assert type(model).__name__ == "Tiny"
    assert not model.training
    assert torch.equal(model(image), original(image))


def test_the_configuration_comes_back(tmp_path):
    save(tmp_path / "best.ckpt")
    checkpoint = read_checkpoint(tmp_path / "best.ckpt")
    assert checkpoint.config == config() and checkpoint.data_class is None
    assert torch.equal(load_model(checkpoint).layer.weight, checkpoint.weights["layer.weight"])

    section = {"class_path": "mine.Data", "init_args": {"channels": 2}}
    save(tmp_path / "mine.ckpt", {**config(), "data": section})
    checkpoint = read_checkpoint(tmp_path / "mine.ckpt")
    assert checkpoint.config == config() and checkpoint.data_class == "mine.Data"


def test_a_path_that_is_no_file_names_checkpoints_nearby(tmp_path):
    assert "Use a checkpoint that `fit` wrote" in refusal(tmp_path / "best.ckpt")
    (tmp_path / "checkpoints").mkdir()
    save(tmp_path / "checkpoints" / "last.ckpt")
    expected = f"Did you mean: {tmp_path / 'checkpoints' / 'last.ckpt'}"
    assert expected in refusal(tmp_path / "checkpoints" / "best.ckpt")
    assert expected in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04 cut", pickle.dumps({"state_dict": 1}, protocol=2)])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "best.ckpt"
    path.write_bytes(content)
    assert "checkpoint" in refusal(path)


def test_a_checkpoint_cut_short(tmp_path):
    path = tmp_path / "best.ckpt"
    save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "cut short" in refusal(path)


def test_bare_weights(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "best.pt")
    assert "state_dict" in refusal(tmp_path / "best.pt")


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
def test_a_checkpoint_that_cannot_be_used(tmp_path, settings, changes, expected):
    save(tmp_path / "best.ckpt", settings, **changes)
    assert expected in refusal(tmp_path / "best.ckpt")


def test_a_command_refuses_the_checkpoint_of_another_task(tmp_path):
    model = save(tmp_path / "best.ckpt")
    checkpoint = read_checkpoint(tmp_path / "best.ckpt")
    require(checkpoint, model, "forward", "predict")
    with pytest.raises(UserError, match=r"^predict cannot use .*best\.ckpt: its model .*Tiny has no 'restore'\.$"):
        require(checkpoint, model, "restore", "predict")


def test_plain_hyperparameters():
    assert is_plain({"a": [1, 2.0, None, "x", True], "b": {"c": (1, 2)}})
    assert not any(is_plain(value) for value in ({"a": [nn.ReLU()]}, torch.optim.Adam, torch.zeros(1)))


SETTINGS = """
class_path: project.models.ImageRestorer
init_args:
  network:
    class_path: project.networks.UNet
    init_args: {widths: [4, 8, 16], norm: group, activation: prelu}
  loss: {class_path: project.models.Charbonnier}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-05, betas: [0.9, 0.99]}}
  scheduler: {class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 0.001, total_steps: 10}}
  compile: true
"""


def test_an_image_restorer_comes_back_from_its_resolved_configuration(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", fail_untyped=False)
    settings = parser.parse_object({"model": yaml.safe_load(SETTINGS)})
    model = parser.instantiate(settings).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    model.network.normalize_input.set([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    text = parser.dump(settings, skip_none=False)
    torch.save({"state_dict": model.state_dict(), "config": text}, tmp_path / "best.ckpt")
    loaded = load_model(tmp_path / "best.ckpt")
    image = torch.rand(2, 3, 13, 22)
    assert isinstance(loaded, ImageRestorer)
    assert torch.equal(loaded.restore(image), model.eval().restore(image))
    assert type(loaded.loss).__name__ == "Charbonnier"
