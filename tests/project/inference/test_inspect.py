"""The command, from a real run to its files and on to a run without the worst images."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch.nn import functional as F

from project.__main__ import main
from project.data import ImageDataModule
from project.inference.inspect import first_filters
from project.models import ImageRestorer
from project.networks import PatchGAN, UNet


def inspect(checkpoint, *words) -> int:
    return main(["inspect", "--ckpt_path", str(checkpoint), "--device", "cpu", *words])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def splits(config: Path, **more) -> dict[str, list[str]]:
    described = yaml.safe_load(config.read_text())["data"]
    described.pop("pairs")
    data = ImageDataModule(**{**described, "fractions": tuple(described["fractions"]), **more})
    data.prepare_data()
    data.setup()
    return {split: [image.name for image in found] for split, found in data.images.items()}


@pytest.fixture
def checkpoint(make_images, save_checkpoint) -> Path:
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 5]}}
    described = {"class_path": "project.models.ImageRestorer", "init_args": {"network": network}}
    data = {"root": str(make_images(10)), "num_workers": 0, "crop": 16}
    return save_checkpoint(ImageRestorer(UNet(widths=[4, 5])), described, data)


def test_from_a_run_to_its_worst_images_and_on_without_them(config, fit, tmp_path, capsys):
    run = fit(config, "whole", "--trainer.max_steps", "2")
    best = run / "checkpoints" / "best.ckpt"
    assert inspect(best, "--maps", "2", "--layer", "encoder.0") == 0
    folder = run / "inspect"
    files = {"filters.png", "features_encoder.0.png", "worst.png", "worst.csv"}
    assert {path.name for path in folder.iterdir()} == files
    printed = capsys.readouterr().out
    assert "Layer encoder.0: 6 feature maps, 2 pixels from one unit to the next." in printed
    assert all(str(folder / name) in printed for name in files)
    for name in files - {"worst.csv"}:
        with Image.open(folder / name) as image:
            assert min(image.size) > 100 and len(image.getcolors(1 << 24)) > 20

    rows = table(folder / "worst.csv")
    before = splits(config)
    assert sorted(row["file"] for row in rows) == before["val"]
    errors = [float(row["mse"]) for row in rows]
    assert errors == sorted(errors, reverse=True)
    scores = [float(row["val/psnr"]) for row in table(run / "metrics.csv") if row.get("val/psnr")]
    assert np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(scores[-1], abs=2e-3)

    # The worst three, as rows of the table; one of the training images by its name, with a comment.
    lines = (folder / "worst.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "drop.csv").write_text("\n".join([*lines[:4], before["train"][0] + ",0"]), encoding="utf-8")
    capsys.readouterr()
    second = fit(config, "less", "--trainer.max_steps", "2", "--data.exclude", "drop.csv")
    assert "Left out: 1 train, 3 val (--data.exclude" in capsys.readouterr().out
    gone = {before["train"][0], *(row["file"] for row in rows[:3])}
    after = splits(config, exclude=str(tmp_path / "drop.csv"))
    assert after == {part: [name for name in before[part] if name not in gone] for part in before}

    # The list travels with the checkpoint; and the manifest still holds every image's split.
    for split in ("val", "train"):
        assert inspect(second / "checkpoints" / "best.ckpt", "--maps", "0", "--split", split, "--output", split) == 0
        assert sorted(row["file"] for row in table(Path(split, "worst.csv"))) == after[split]
        assert not list(Path(split).glob("features_*"))
    assert splits(config) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--layer", "midle"], "--layer: 'midle' is not known. Did you mean 'middle'"),
        (["--split", "valid"], "--split"),
        (["--maps", "-1"], "--maps"),
        (["--layr", "middle"], "Unknown option: --layr\nDid you mean layer?"),
        (["--data.rot", "x"], "error: Unknown option: --data.rot\nDid you mean data.root?\n"),
        (["--data.root", "nowhere"], "--data.root"),
        (["--data.exclude", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--split", "test", "--data.fractions", "[0.8, 0.2, 0]", "--maps", "0"], "There is no test image"),
        (["--output", "file.txt"], "--output file.txt cannot be made"),
    ],
)
def test_mistakes_end_in_a_few_lines(checkpoint, words, expected, capsys):
    Path("file.txt").write_text("in the way")
    assert inspect(checkpoint, *words) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert len(printed.splitlines()) <= 10


def test_images_that_are_gone_or_a_checkpoint_outside_a_run_and_the_ways_out(checkpoint, tmp_path, capsys):
    root = Path(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["root"])
    root.rename(tmp_path / "moved")
    assert inspect(checkpoint, "--maps", "0") == 2
    printed = capsys.readouterr().err
    assert f"--data.root {root} does not exist" in printed
    assert inspect(checkpoint, "--maps", "0", "--data.root", "moved") == 0
    assert len(table(tmp_path / "run" / "inspect" / "worst.csv")) == 2
    (tmp_path / "run" / "config.yaml").unlink()
    assert inspect(checkpoint) == 2
    assert "say where to write with --output" in capsys.readouterr().err


def test_data_settings_of_another_version_are_named(checkpoint, tmp_path, capsys):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"config": content["config"].replace("crop:", "split_seed: 42\n  crop:")}, checkpoint)
    assert inspect(checkpoint, "--maps", "0") == 2
    printed = capsys.readouterr().err
    assert "split_seed" in printed and "best.ckpt: " in printed and "written by another version" in printed


def test_without_captum_all_but_the_features_can_be_had(checkpoint, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "captum" else find(name))
    assert inspect(checkpoint) == 2
    printed = capsys.readouterr().err
    assert "[inspect]" in printed and "--maps 0" in printed
    assert inspect(checkpoint, "--maps", "0", "--output", "here") == 0
    assert Path("here", "worst.csv").is_file()


@pytest.mark.parametrize(("channels", "stem"), [(3, 1), (3, 2), (5, 3), (1, 2)])
def test_filters_put_back_do_to_the_image_what_the_layer_does(channels, stem):
    network = UNet(in_channels=channels, widths=[6, 7], stem=stem, out_channels=1).eval()
    x = torch.rand(1, channels, 12 * stem, 10 * stem)
    layer, weights = first_filters(network, x)
    assert layer == "head"
    expected = network.head(F.pixel_unshuffle(x, stem))
    given = F.conv2d(x, weights, network.head.bias, stride=stem, padding=stem)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)


def test_the_first_filters_are_those_that_the_pass_meets_first():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 3, 1), nn.Conv2d(2, 4, (3, 5))

        def forward(self, x):
            return self.a(self.b(x))

    layer, weights = first_filters(Backwards(), torch.rand(1, 2, 9, 9))
    assert layer == "b" and weights.shape == (4, 2, 3, 5)
    assert first_filters(nn.Flatten(), torch.rand(1, 2, 9, 9)) is None
    network = PatchGAN(in_channels=6, width=5, spectral_norm=True).eval()
    _, weights = first_filters(network, torch.rand(1, 6, 48, 56))
    torch.testing.assert_close(weights, network.blocks[0][0].weight)
