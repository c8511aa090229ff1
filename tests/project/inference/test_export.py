"""From a run to its exported files: they give what the checkpoint gives, on sizes that they were not made with."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from project.__main__ import main
from project.inference import export
from project.inference.common import input_channels
from project.models import GANColorizer, ImageRestorer
from project.networks import BackboneUNet, Normalized, UNet
from workbench.checkpoint import load_model

NETWORK = {"class_path": "project.networks.UNet", "init_args": {"widths": [6, 9], "norm": "group", "stem": 2}}


@pytest.fixture
def run(save_checkpoint) -> Path:
    """The folder of a run that trained nothing."""
    described = {"class_path": "project.models.ImageRestorer", "init_args": {"network": NETWORK}}
    splits = {"splits": {part: {"images": 14, "fingerprint": "ab"} for part in ("train", "val")}}
    model = ImageRestorer(UNet(**NETWORK["init_args"]))
    folder = save_checkpoint(model, described, {"root": "photos"}, ImageDataModule=splits).parents[1]
    (folder / "metrics.csv").write_text("step,val/psnr,val/psnr_baseline,train/lr\n1,20,19,1\n2,21.5,,\n")
    return folder


def run_export(run: Path, *words: str) -> int:
    return main(["export", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), *words])


def printed_difference(text: str) -> float:
    return float(re.search(r"Maximum difference\s+(\S+) to PyTorch", text)[1])


def test_a_state_dict_holds_plain_values_and_what_it_is_built_from(run, capsys):
    assert run_export(run, "--format", "state_dict", "--license", "CC0") == 0
    assert printed_difference(capsys.readouterr().out) == 0
    file = run / "export" / "tiny.pt"
    content = torch.load(file, weights_only=True)
    network = UNet(**content["network"]["init_args"])
    network.load_state_dict(content["state_dict"])
    x = torch.rand(1, 3, 33, 20)
    model = load_model(run / "checkpoints" / "best.ckpt")
    torch.testing.assert_close(network.eval()(x).clamp(0, 1), model.restore(x), rtol=0, atol=1e-6)
    card = yaml.safe_load(file.with_suffix(".pt.yaml").read_text())
    assert card["license"] == "CC0"
    assert card["file"] == {"name": "tiny.pt", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert card["scores"] == {"val/psnr": 21.5, "val/psnr_baseline": 19}
    assert card["splits"]["train"] == {"images": 14, "fingerprint": "ab"}
    assert card["config"]["data"]["root"] == "photos" and card["versions"]["torch"]


def test_onnx_is_one_file_for_every_size(run, tmp_path, capsys):
    import onnxruntime

    assert run_export(run, "--output", "restorer.onnx") == 0
    assert printed_difference(capsys.readouterr().out) < 1e-5
    assert {path.name for path in tmp_path.glob("restorer*")} == {"restorer.onnx", "restorer.onnx.yaml"}
    session = onnxruntime.InferenceSession("restorer.onnx", providers=["CPUExecutionProvider"])
    model = load_model(run / "checkpoints" / "best.ckpt")
    for size in ((3, 3, 19, 86), (1, 3, 64, 64)):
        x = torch.rand(size, generator=torch.Generator().manual_seed(1))
        (found,) = session.run(None, {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model.restore(x), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: BackboneUNet("mobilenet_v3_small", "none", stages=3, widths=[4, 6, 6, 8], residual=True),
        lambda: UNet(in_channels=5, out_channels=2, widths=[4, 6], norm="group", attention=[1]),
        lambda: Normalized(nn.Conv2d(3, 3, 3, padding=1)),
    ],
    ids=["backbone", "attention", "wrapped"],
)
def test_networks_of_all_kinds(make, tmp_path):
    network = make()
    model = (GANColorizer(network, None) if isinstance(network, UNet) else ImageRestorer(network)).eval()
    network = export.ExportNetwork(model).eval()
    channels = input_channels(network.network, {})
    exported = export.write_onnx(network, torch.rand(2, channels, 66, 90), tmp_path / "file")
    assert export.largest_difference(network, exported, channels) < 1e-4
    assert export.largest_difference(network, lambda x: exported(x)[..., 1:], channels) == float("inf")
    x = torch.rand(2, channels, 37, 50)
    torch.testing.assert_close(exported(x), model.restore(x), atol=1e-4, rtol=0)


def test_a_file_whose_output_differs_is_not_kept(run, monkeypatch, capsys):
    honest = export.write_state_dict

    def wrong(*given):
        function = honest(*given)
        return lambda x: function(x) + 0.05

    monkeypatch.setattr(export, "write_state_dict", wrong)
    assert run_export(run, "--format", "state_dict") == 2
    assert "output differs from PyTorch's by 0.05" in capsys.readouterr().err
    assert not list((run / "export").iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "onyx"], "--format"),
        (["--output", ".", "--format", "state_dict"], "cannot be written"),
        (["--output", "run/checkpoints/best.ckpt"], "is the checkpoint itself"),
        (["--output", "run/config.yaml/restorer.onnx"], "cannot be written"),
    ],
)
def test_a_mistake_ends_in_a_few_lines(run, capsys, words, message):
    assert run_export(run, *words) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_full_disks_and_missing_packages_are_named(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run_export(run) == 2
    assert "pip install '.[export]'" in capsys.readouterr().err

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run_export(run, "--format", "state_dict", "--output", "made/restorer") == 2
    assert "made/restorer cannot be written: No space left on device" in capsys.readouterr().err
    assert not list(Path("made").iterdir())
