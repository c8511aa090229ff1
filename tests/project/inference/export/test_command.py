"""From a run to its exported files: they answer as the checkpoint does, on sizes that they were not made with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from project.__main__ import main
from project.inference.export import card, formats, verify
from project.inference.export.answer import Answer, input_channels
from project.models import GANColorizer, ImageRestorer
from project.networks import BackboneUNet, Normalized, UNet
from workbench.checkpoint import Checkpoint, load_model


@pytest.fixture
def run(tmp_path: Path, make_images) -> Path:
    """Two steps of a tiny network on twenty images."""
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [6, 9], "norm": "group", "stem": 2}}
    model = {"class_path": "project.models.ImageRestorer", "init_args": {"network": network}}
    data = {"root": str(make_images(20, 52, 41)), "crop": 24, "batch_size": 7, "num_workers": 0}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": {"accelerator": "cpu", "max_steps": 2}}))
    assert main(["fit", "--config", str(path), "--wandb", "off"]) == 0
    return Path("runs/tiny/latest").resolve()


def export(run: Path, *words: str) -> int:
    return main(["export", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *words])


def printed_difference(text: str) -> float:
    return float(re.search(r"Maximum difference\s+(\S+) to PyTorch", text)[1])


def test_torchscript_answers_as_the_checkpoint_does(run, capsys):
    assert export(run, "--format", "torchscript", "--license", "CC0") == 0
    assert printed_difference(capsys.readouterr().out) < 1e-5
    file = run / "export" / "tiny.ts"
    model, loaded = load_model(run / "checkpoints" / "best.ckpt"), torch.jit.load(str(file))
    for size in ((1, 3, 57, 38), (2, 3, 5, 7)):
        x = torch.rand(size)
        torch.testing.assert_close(loaded(x), model.restore(x), atol=1e-5, rtol=0)
    card = (run / "export" / "tiny.ts.md").read_text()
    assert "License: CC0" in card and "psnr_baseline" in card and "widths:" in card
    assert re.search(r"- train: 14 images, fingerprint [0-9a-f]{32}\n- val: 4 images", card)


def test_a_state_dict_holds_plain_values_and_what_it_is_built_from(run, capsys):
    assert export(run, "--format", "state_dict", "--output", "weights.pt") == 0
    assert printed_difference(capsys.readouterr().out) == 0
    content = torch.load("weights.pt", weights_only=True)
    network = UNet(**content["network"]["init_args"])
    network.load_state_dict(content["state_dict"])
    x = torch.rand(1, 3, 33, 20)
    model = load_model(run / "checkpoints" / "best.ckpt")
    torch.testing.assert_close(network.eval()(x).clamp(0, 1), model.restore(x), rtol=0, atol=1e-6)


def test_onnx_is_one_file_for_every_size(run, tmp_path, capsys):
    import onnxruntime

    assert export(run, "--output", "restorer.onnx") == 0
    assert printed_difference(capsys.readouterr().out) < 1e-5
    assert {path.name for path in tmp_path.glob("restorer*")} == {"restorer.onnx", "restorer.onnx.md"}
    session = onnxruntime.InferenceSession("restorer.onnx", providers=["CPUExecutionProvider"])
    model = load_model(run / "checkpoints" / "best.ckpt")
    for size in ((3, 3, 19, 86), (1, 3, 64, 64)):
        x = torch.rand(size)
        (found,) = session.run(None, {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model.restore(x), atol=1e-5, rtol=0)


def colorist(**options) -> GANColorizer:
    torch.manual_seed(0)
    return GANColorizer(UNet(in_channels=5, out_channels=2, widths=[4, 6], norm="group", **options), None)


def backbone() -> ImageRestorer:
    torch.manual_seed(0)
    return ImageRestorer(BackboneUNet("mobilenet_v3_small", "none", stages=3, widths=[4, 6, 6, 8], residual=True))


MODELS = {
    "backbone": backbone,
    "colors": colorist,
    "attention": lambda: colorist(attention=[1]),
    "wrapped": lambda: ImageRestorer(Normalized(nn.Conv2d(3, 3, 3, padding=1))),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("format", ["torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
def test_networks_of_all_kinds(name, format, tmp_path):
    model = MODELS[name]().eval()
    answer = Answer(model).eval()
    channels = input_channels(answer.network, {})
    write = {"torchscript": formats.write_torchscript, "onnx": formats.write_onnx}[format]
    function = write(answer, torch.rand(2, channels, 66, 90), tmp_path / "file")
    assert verify.largest_difference(answer, function, channels) < 1e-4
    x = torch.rand(2, channels, 37, 50)
    torch.testing.assert_close(function(x), model.restore(x), atol=1e-4, rtol=0)


def test_a_file_that_answers_otherwise_is_not_kept(run, monkeypatch, capsys):
    honest = formats.write_torchscript

    def wrong(*given):
        function = honest(*given)
        return lambda x: function(x) + 0.05

    monkeypatch.setattr(formats, "write_torchscript", wrong)
    assert export(run, "--format", "torchscript") == 2
    assert "does not answer as PyTorch does: they are 0.05 apart" in capsys.readouterr().err
    assert not list((run / "export").iterdir())


def test_an_answer_of_another_size_is_infinitely_far():
    network = nn.Conv2d(3, 3, 1)
    assert verify.largest_difference(network, lambda x: network(x)[..., 1:], 3) == float("inf")
    assert verify.largest_difference(network, network, 3) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--format", "onyx"], "--format"),
        (["--formt", "onnx"], "Did you mean --format?"),
        (["--output", "."], "is a folder"),
        (["--output", "runs/tiny/latest/checkpoints/best.ckpt"], "is the checkpoint itself"),
        (["--output", "pictures/000.png/restorer.onnx"], "cannot be written"),
    ],
)
def test_a_mistake_is_told_in_a_few_lines(run, capsys, words, told):
    assert export(run, *words) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


@pytest.mark.parametrize("format", ["torchscript", "state_dict"])
def test_a_full_disk_is_told(run, monkeypatch, capsys, format):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert export(run, "--format", format, "--output", "made/restorer") == 2
    assert "made/restorer cannot be written: No space left on device" in capsys.readouterr().err
    assert not list(Path("made").iterdir())


def test_missing_packages_are_named(run, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert export(run) == 2
    assert "pip install '.[export]'" in capsys.readouterr().err


def test_the_card_tells_of_extra_pairs_and_who_has_answered_them():
    members = [{"checkpoint": "/runs/a/best.ckpt", "sha256": "0f"}]
    train = {"images": 11, "fingerprint": "ab", "extra_pairs": {"images": 4, "folder": "/more", "members": members}}
    lines = card._pictures(Checkpoint(Path("x.ckpt"), {"data": {}}, {}, {"train": train}))
    assert lines[1:] == [
        "- train: 11 images, fingerprint ab",
        "  - 4 of them are answers of /runs/a/best.ckpt (SHA-256 0f), from /more",
    ]
