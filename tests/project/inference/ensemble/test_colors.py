"""Ensembles of networks that color, through the commands: scores, images, maps, and pairs that train further."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from project.__main__ import main
from project.color import rgb_to_lab
from project.inference.prediction.pictures import open_picture

SPATIAL = {"class_path": "project.data.pairs.SpatialHints"}
MAKERS = {"lightness": "GrayToColor", "lines": "LinesToColor"}


def config(folder: Path, root: Path, kind: str) -> Path:
    """A GAN on photographs in Lab with hints; or a plain UNet on lines that are drawn from the images."""
    hinted = kind == "lightness"
    unet = {
        "class_path": "project.networks.UNet",
        "init_args": {"in_channels": 5 if hinted else 1, "out_channels": 2 if hinted else 3, "widths": [6, 9]},
    }
    patch = {"class_path": "project.networks.PatchGAN", "init_args": {"in_channels": 7, "width": 4, "layers": 2}}
    gan = {"generator": unet, "discriminator": patch, "space": "lab"}
    pairs = {"class_path": f"project.data.pairs.{MAKERS[kind]}", "init_args": {"hints": SPATIAL} if hinted else {}}
    whole = {
        "model": {"class_path": "project.models.GANColorizer", "init_args": gan}
        if hinted
        else {"class_path": "project.models.ImageRestorer", "init_args": {"network": unet}},
        "data": {"root": str(root), "crop": 24, "batch_size": 5, "num_workers": 0, "pairs": pairs},
        "trainer": {"accelerator": "cpu", "max_steps": 6, "check_val_every_n_epoch": 6},
        "checkpoint": {"monitor": None},
    }
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path


@pytest.fixture(params=["lightness", pytest.param("lines", marks=pytest.mark.slow)])
def trained(request: pytest.FixtureRequest, tmp_path: Path, make_images) -> tuple[str, Path, list[str]]:
    """The kind, its configuration, and two runs of a few steps from different seeds; each takes ten seconds."""
    path = config(tmp_path, make_images(12, 52, 41), request.param)
    found = []
    for seed in ("1", "2"):
        assert main(["fit", "--config", str(path), "--wandb", "off", "--seed_everything", seed, "--name", seed]) == 0
        found.append(str(Path("runs", seed, "latest").resolve() / "checkpoints" / "best.ckpt"))
    return request.param, path, found


def inputs(folder: Path) -> Path:
    """Three gray images of other sizes than those of the training, one of them half transparent."""
    folder.mkdir()
    y, x = np.mgrid[:57, :90]
    for number, shape in enumerate(((57, 90), (41, 52), (30, 77))):
        gray = np.uint8(120 + 90 * np.sin(x / (5 + number)) * np.cos(y / 7))[: shape[0], : shape[1]]
        image = Image.fromarray(gray)
        if number == 2:
            alpha = np.zeros(shape, np.uint8)
            alpha[:, 20:] = 255
            image.putalpha(Image.fromarray(alpha))
        image.save(folder / f"{number}.png")
    return folder


def test_members_are_scored_and_color_together_and_their_pairs_train_further(trained, tmp_path, capsys):
    kind, path, checkpoints = trained
    capsys.readouterr()
    assert main(["ensemble", "--ckpts", *checkpoints]) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"│ (\S.*?)\s+│\s+([\d.]+) │\s+([\d.]+) │\s+([\d.]+) │", printed)
    assert "colors / truth's" in printed and len(rows) == 4
    assert float(rows[3][3]) == 0, "doing nothing has no colors"
    assert float(rows[2][1]) >= min(float(row[1]) for row in rows[:2]) - 0.01

    gray = inputs(tmp_path / "gray")
    words = ["ensemble", "--ckpts", *checkpoints, "--input", str(gray), "--min_confidence", "0"]
    assert main([*words, "--output", "colored"]) == 0
    assert "Colors are found at 24 pixels" in capsys.readouterr().out
    assert main(["predict", "--ckpt_path", checkpoints[0], "--input", str(gray), "--output", "alone"]) == 0
    for name in ("0.png", "1.png", "2.png"):
        source, answer = open_picture(gray / name), open_picture(f"colored/{name}")
        apart = np.asarray(Image.open(f"colored/{name.replace('.', '.disagreement.')}"))
        assert answer.pixels.shape == (*source.pixels.shape[:2], 3) and apart.shape == source.pixels.shape[:2]
        assert (answer.alpha is None) == (source.alpha is None)
        assert apart.max() > 0 and not np.array_equal(answer.pixels, open_picture(f"alone/{name}").pixels)
        if kind == "lightness":
            assert np.abs(lightness(answer.pixels) - lightness(np.repeat(source.pixels, 3, axis=2))).max() < 1.5
    manifest = json.loads(Path("colored/pairs/manifest.json").read_text())
    assert manifest["kind"] == kind and len(manifest["pairs"]) == 3
    seen = np.asarray(Image.open("colored/pairs/inputs/2.png"))
    assert (seen[:, :20] == 255).all(), "transparency is white, as it is in training"

    extra = ["--data.extra_pairs", "colored/pairs", "--wandb", "off"]
    assert main(["fit", "--config", str(path), "--name", "more", *extra]) == 0
    assert "12 train (3 of them extra pairs)" in capsys.readouterr().out
    data = yaml.safe_load(Path("runs/more/latest/config.yaml").read_text())["data"]
    assert data["extra_pairs"] == str((tmp_path / "colored" / "pairs").absolute())


def lightness(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> CIELAB's L, (H, W)."""
    return rgb_to_lab(torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float())[0, 0].numpy()


def test_hints_are_for_networks_that_know_them(trained, tmp_path, capsys):
    kind, _, checkpoints = trained
    gray = inputs(tmp_path / "gray")
    hints = tmp_path / "hints.json"
    hints.write_text('{"0.png": [{"x": 45, "y": 30, "color": "#ff0000"}]}')
    words = ["ensemble", "--ckpts", *checkpoints, "--input", str(gray)]
    if kind == "lines":
        assert main([*words, "--output", "hinted", "--hints", str(hints)]) == 2
        assert "trained without hints" in capsys.readouterr().err
        return
    assert main([*words, "--output", "hinted", "--hints", str(hints), "--size", "0"]) == 0
    assert main([*words, "--output", "large", "--size", "0"]) == 0
    told, plain = (np.asarray(Image.open(f"{folder}/0.png")).astype(int) for folder in ("hinted", "large"))
    assert np.abs(told - plain).max() > 0
    same = [np.asarray(Image.open(f"{folder}/1.png")) for folder in ("hinted", "large")]
    assert np.array_equal(*same), "which has no hints"
    assert main([*words, "--output", "hinted", "--palette", "red"]) == 2
    assert "not with a palette" in capsys.readouterr().err

    other = torch.load(checkpoints[1], weights_only=True)
    other["config"] = other["config"].replace("GrayToColor", "LinesToColor")
    torch.save(other, "other.ckpt")
    assert main(["ensemble", "--ckpts", checkpoints[0], "other.ckpt"]) == 2
    assert "not trained for one task" in capsys.readouterr().err
