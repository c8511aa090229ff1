"""Checkpoint to model: nothing but the file, and short errors for every file that is none."""

import pickle
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch import nn

from project.models import ImageRestorer
from workbench.checkpoint import load_model, read_checkpoint
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
    assert checkpoint.config == config()
    assert torch.equal(load_model(checkpoint).layer.weight, checkpoint.weights["layer.weight"])


def test_a_missing_file_names_those_that_are_there(tmp_path):
    save(tmp_path / "last.ckpt")
    assert "last.ckpt" in refusal(tmp_path / "best.ckpt")


def test_a_folder_names_the_checkpoints_in_it(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert "project fit" in refusal(tmp_path / "run")
    save(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert str(Path("checkpoints", "best.ckpt")) in refusal(tmp_path / "run")


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


def test_a_checkpoint_with_foreign_objects_is_not_run(tmp_path):
    path = tmp_path / "best.ckpt"
    save(path, extra=nn.Linear(1, 1))
    assert "for safety" in refusal(path)


@pytest.mark.parametrize("text", [None, "", "data: {}", "model: 3", "a: [", 7])
def test_a_checkpoint_that_does_not_say_what_it_holds(tmp_path, text):
    path = tmp_path / "best.ckpt"
    save(path, **{"config": text})
    assert "which model" in refusal(path)


def test_bare_weights(tmp_path):
    path = tmp_path / "best.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    assert "state_dict" in refusal(path)


def test_a_class_that_is_gone(tmp_path):
    path = tmp_path / "best.ckpt"
    settings = config()
    settings["model"]["class_path"] = "nowhere.Gone"
    save(path, settings)
    assert "No module named 'nowhere'" in refusal(path)


def test_an_argument_that_is_gone(tmp_path):
    path = tmp_path / "best.ckpt"
    save(path, config(width=3))
    assert "Option 'width' is not accepted\n" in refusal(path)


def test_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "best.ckpt"
    save(path, state_dict=Tiny(nn.Conv2d(2, 4, 5)).state_dict())
    assert "layer.weight" in refusal(path)


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
