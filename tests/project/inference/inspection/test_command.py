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

from project.__main__ import main
from project.data import ImageDataModule
from project.models import ImageRestorer
from project.networks import Normalized, UNet

WAVES = {"class_path": "project.data.pairs.GaussianNoise", "init_args": {"sigma": 50.0}}


@pytest.fixture
def config(tmp_path, make_images) -> Path:
    """Two steps of a tiny network on twenty images."""
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [6, 9], "norm": "group", "stem": 2}}
    model = {"class_path": "project.models.ImageRestorer", "init_args": {"network": network}}
    data = {
        "root": str(make_images(20, width=52, height=41)),
        "fractions": [0.4, 0.5, 0.1],
        "pairs": WAVES,
        "crop": 24,
        "batch_size": 4,
        "num_workers": 0,
    }
    trainer = {"accelerator": "cpu", "max_steps": 2}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    return path


def fit(config, *words) -> Path:
    """The folder of a new run."""
    before = set(Path("runs", config.stem).glob("2*"))
    assert main(["fit", "--config", str(config), "--wandb", "off", *words]) == 0
    (folder,) = set(Path("runs", config.stem).glob("2*")) - before
    return folder


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
    return {split: [picture.name for picture in found] for split, found in data.images.items()}


def test_from_a_run_to_its_worst_pictures_and_on_without_them(config, tmp_path, capsys):
    run = fit(config)
    best = run / "checkpoints" / "best.ckpt"
    assert inspect(best, "--maps", "2", "--layer", "encoder.0") == 0
    folder = run / "inspect"
    files = {"filters.png", "features_encoder.0.png", "worst.png", "worst.csv"}
    assert {path.name for path in folder.iterdir()} == files
    told = capsys.readouterr().out
    assert "Layer encoder.0: 6 feature maps; a unit sees 14 x 14 pixels." in told
    assert all(str(folder / name) in told for name in files)
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
    second = fit(config, "--data.exclude", "drop.csv")
    assert "Left out: 1 train, 3 val (--data.exclude" in capsys.readouterr().out
    gone = {before["train"][0], *(row["file"] for row in rows[:3])}
    after = splits(config, exclude=str(tmp_path / "drop.csv"))
    assert after == {part: [name for name in before[part] if name not in gone] for part in before}

    # The list travels with the checkpoint; and the manifest has not forgotten who belongs where.
    assert inspect(second / "checkpoints" / "best.ckpt", "--maps", "0") == 0
    assert sorted(row["file"] for row in table(second / "inspect" / "worst.csv")) == after["val"]
    assert not list((second / "inspect").glob("features_*"))
    assert splits(config) == before


def test_other_splits_and_other_pictures(config, make_images, tmp_path, capsys):
    run = fit(config)
    best = run / "checkpoints" / "best.ckpt"
    for split, count in (("train", 8), ("test", 2)):
        assert inspect(best, "--maps", "0", "--split", split) == 0
        assert len(table(run / f"inspect-{split}" / "worst.csv")) == count
        assert f"({count} {split} images)" in capsys.readouterr().out
    others = make_images(9, width=30, height=38, folder="others")
    words = ["--maps", "1", f"--data.root={others}", "--data.fractions", "[0.3, 0.4, 0.3]", "--output", "elsewhere"]
    assert inspect(best, *words) == 0
    rows = table(Path("elsewhere", "worst.csv"))
    assert {(row["width"], row["height"]) for row in rows} == {("30", "38")}
    assert "images are too few" in capsys.readouterr().out
    assert list(Path("elsewhere").glob("features_*.png"))


@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_a_coloring_gan_shows_both_its_networks(space, make_images, tmp_path):
    spatial = {"class_path": "project.data.pairs.SpatialHints"}
    maker = {"lab": "GrayToColor", "rgb": "LinesToColor"}[space]
    colors = {"lab": 2, "rgb": 3}[space]
    generator = {"in_channels": 5, "out_channels": colors, "widths": [4, 6], "stem": 2}
    config = {
        "model": {
            "class_path": "project.models.GANColorizer",
            "init_args": {
                "space": space,
                "generator": {"class_path": "project.networks.UNet", "init_args": generator},
                "discriminator": {
                    "class_path": "project.networks.PatchGAN",
                    "init_args": {"in_channels": 5 + colors, "width": 4, "layers": 1},
                },
            },
        },
        "data": {
            "root": str(make_images(10, width=36, height=32)),
            "pairs": {"class_path": f"project.data.pairs.{maker}", "init_args": {"hints": spatial}},
            "crop": 24,
            "num_workers": 0,
        },
        "trainer": {"accelerator": "cpu", "max_steps": 2},
    }
    path = tmp_path / "gan.yaml"
    path.write_text(yaml.safe_dump(config))
    run = fit(path)
    assert inspect(run / "checkpoints" / "best.ckpt", "--maps", "1") == 0
    made = {path.name for path in (run / "inspect").iterdir()}
    assert {"filters.png", "filters_discriminator.png", "worst.png", "worst.csv"} < made
    assert len(made) == 5


def save_checkpoint(root: Path, folder: Path, network: nn.Module, described: dict) -> Path:
    """What ``fit`` would write in a run's folder, untrained."""
    model = {"class_path": "project.models.ImageRestorer", "init_args": {"network": described}}
    config = {"model": model, "data": {"root": str(root), "pairs": WAVES, "num_workers": 0, "crop": 16}}
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save({"state_dict": ImageRestorer(network).state_dict(), "config": yaml.safe_dump(config)}, path)
    return path


@pytest.fixture
def checkpoint(make_images, tmp_path) -> Path:
    described = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 5]}}
    return save_checkpoint(make_images(10), tmp_path / "run", UNet(widths=[4, 5]), described)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--layer", "midle"],
            "--layer midle: the network has no layer of that name that gives feature maps. Did you mean middle",
        ),
        (["--split", "valid"], "--split"),
        (["--maps", "-1"], "--maps -1 is too small"),
        (["--layr", "middle"], "inspect has no option --layr. Did you mean --layer?"),
        (["--data.rot", "x"], "Did you mean data.root?"),
        (["--data.root", "nowhere"], "The images of this checkpoint's run cannot be had: --data.root"),
        (["--data.exclude", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--split", "test", "--data.fractions", "[0.8, 0.2, 0]", "--maps", "0"], "There is no test image"),
        (["--output", "file.txt"], "--output file.txt cannot be made"),
    ],
)
def test_mistakes_are_told_in_a_few_lines(checkpoint, words, expected, capsys):
    Path("file.txt").write_text("in the way")
    assert inspect(checkpoint, *words) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert len(told.splitlines()) <= 10


def test_pictures_that_are_gone_and_the_way_out(checkpoint, make_images, tmp_path, capsys):
    (tmp_path / "pictures").rename(tmp_path / "moved")
    assert inspect(checkpoint, "--maps", "0") == 2
    told = capsys.readouterr().err
    assert "images does not exist" in told and "--data.root FOLDER" in told
    assert inspect(checkpoint, "--maps", "0", "--data.root", "moved") == 0
    assert len(table(tmp_path / "run" / "inspect" / "worst.csv")) == 2


def test_a_checkpoint_outside_a_run_needs_a_place_for_the_results(checkpoint, tmp_path, capsys):
    (tmp_path / "run" / "config.yaml").unlink()
    assert inspect(checkpoint) == 2
    assert "--output FOLDER" in capsys.readouterr().err
    assert inspect(checkpoint, "--maps", "0", "--output", "here") == 0
    assert Path("here", "worst.csv").is_file()


def test_without_captum_all_but_the_features_can_be_had(checkpoint, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "captum" else find(name, *more)
    )
    assert inspect(checkpoint) == 2
    told = capsys.readouterr().err
    assert "[inspect]" in told and "--maps 0" in told
    assert inspect(checkpoint, "--maps", "0") == 0


def test_a_network_of_ones_own(make_images, tmp_path, capsys):
    inner = {
        "class_path": "torch.nn.Conv2d",
        "init_args": {"in_channels": 3, "out_channels": 3, "kernel_size": 1},
    }
    described = {"class_path": "project.networks.Normalized", "init_args": {"network": inner}}
    path = save_checkpoint(make_images(10), tmp_path / "own", Normalized(nn.Conv2d(3, 3, 1)), described)
    assert inspect(path, "--maps", "3") == 0
    assert (tmp_path / "own" / "inspect" / "features_network.png").is_file()


def test_the_help_is_short_and_names_the_options(capsys):
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    told = capsys.readouterr().out
    for option in ("--ckpt_path", "--output", "--split", "--layer", "--maps", "--data.KEY"):
        assert option in told
    assert len(told.splitlines()) < 40
