"""The command on real runs: scores, images, maps of the uncertainty, and pseudo-labels for a further run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from project.__main__ import main
from project.inference.image_files import read_image


def members_of(fit: Callable[..., Path], config: Path) -> list[str]:
    """The best checkpoints of two runs of other seeds."""
    runs = [fit(config, seed, "--seed_everything", seed) for seed in ("1", "2")]
    return [str(run / "checkpoints" / "best.ckpt") for run in runs]


def table(text: str) -> dict[str, float]:
    """The PSNR of each row."""
    return {name: float(psnr) for name, psnr in re.findall(r"│ (\S.*?)\s+│\s+([\d.]+) │", text)}


def test_members_are_scored_beside_the_ensemble_and_restore_images(config, fit, capsys):
    checkpoints = members_of(fit, config)
    capsys.readouterr()
    for words in ([], ["--tta", "true"]):
        assert main(["ensemble", "--ckpts", *checkpoints, *words]) == 0
        *members, together, nothing = table(capsys.readouterr().out).values()
        assert len(members) == 2
        assert together >= min(members), "the error of a mean is at most the members' mean error"
        assert nothing > 10
    assert main(["test", "--ckpt_path", checkpoints[0]]) == 0
    assert f"{members[0]:.2f}" in capsys.readouterr().out

    words = ["--input", "pictures", "--output", "restored", "--min_confidence", "0"]
    assert main(["ensemble", "--ckpts", *checkpoints, *words]) == 0
    names = sorted(path.name for path in Path("pictures").iterdir())
    assert sorted(path.name for path in Path("restored/pairs/targets").iterdir()) == names
    for name in names[:3]:
        restored, spread = (Image.open(f"restored/{file}") for file in (name, name.replace(".", ".uncertainty.")))
        assert restored.size == spread.size == Image.open(f"pictures/{name}").size
        assert spread.mode == "L"
        assert np.array_equal(np.asarray(restored), np.asarray(Image.open(f"restored/pairs/targets/{name}")))
    manifest = json.loads(Path("restored/pairs/manifest.json").read_text())
    assert [pair["file"] for pair in manifest["pairs"]] == names
    assert len(manifest["members"]) == 2
    assert all(0 < pair["confidence"] < 1 for pair in manifest["pairs"])

    limit = sorted(pair["confidence"] for pair in manifest["pairs"])[10]
    words[-1] = str(limit)
    assert main(["ensemble", "--ckpts", *checkpoints, *words[:3], "certain", *words[4:]]) == 0
    assert len(list(Path("certain/pairs/inputs").iterdir())) == 10
    fit(config, "more", "--data.extra_pairs", "restored/pairs")
    assert "extra pairs" in capsys.readouterr().out


def test_the_snapshots_of_one_run_are_averaged(config, fit, capsys):
    whole = yaml.safe_load(config.read_text())
    schedule = {"class_path": "project.models.WarmupCosine", "init_args": {"cycles": 3, "warmup": 0}}
    whole["model"]["init_args"]["scheduler"] = schedule
    whole["checkpoint"] = {"snapshots": "cycles"}
    config.write_text(yaml.safe_dump(whole))
    folder = fit(config, "cycles") / "checkpoints"
    pattern = folder / "snapshot-*.ckpt"
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"python -m project ensemble --ckpts {pattern.relative_to(Path.cwd())}" in printed
    snapshots = [str(folder / f"snapshot-{step:06d}.ckpt") for step in (4, 8, 12)]
    assert sorted(map(str, folder.glob("snapshot-*"))) == snapshots
    assert main(["ensemble", "--ckpts", *snapshots]) == 0
    *members, together, _ = table(capsys.readouterr().out).values()
    assert len(members) == 3
    assert together >= min(members)
    assert main(["test", "--ckpt_path", snapshots[0]]) == 0
    assert f"{members[0]:.2f}" in capsys.readouterr().out
    assert main(["fit", "--ckpt_path", snapshots[0], "--wandb", "off"]) == 2
    assert "last.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ckpts", "a.ckpt"], "One checkpoint is no ensemble"),
        (["--ckpts", "a.ckpt", "b.ckpt", "--input", "x"], "--input needs --input and --output"),
        (["--ckpts", "a.ckpt", "b.ckpt", "--min_confidence", "0.5"], "--min_confidence needs --input and --output"),
        (["--ckpts", "a.ckpt", "b.ckpt"], "There is no checkpoint a.ckpt"),
        (["--ckpts", "a.ckpt", "b.ckpt", "--taa", "true"], "Did you mean tta?"),
    ],
)
def test_a_mistake_is_reported_in_a_few_lines(capsys, words, reason):
    assert main(["ensemble", *words]) == 2
    assert reason in capsys.readouterr().err


def test_members_color_together_with_hints_and_their_pairs_train_further(config, fit, lightness, make_images, capsys):
    unet = {"in_channels": 5, "out_channels": 2, "widths": [6, 9]}
    patch = {"in_channels": 7, "width": 4, "layers": 2}
    networks = {
        "generator": {"class_path": "project.networks.UNet", "init_args": unet},
        "discriminator": {"class_path": "project.networks.PatchGAN", "init_args": patch},
    }
    gan = {"class_path": "project.models.GANColorizer", "init_args": {**networks, "space": "lab"}}
    hints = {"hints": {"class_path": "project.data.pairs.SpatialHints"}}
    pairs = {"class_path": "project.data.pairs.GrayToColor", "init_args": hints}
    whole = yaml.safe_load(config.read_text())
    whole |= {"model": gan, "checkpoint": {"monitor": None}}
    whole["data"] |= {"pairs": pairs}
    whole["trainer"] |= {"max_steps": 6, "check_val_every_n_epoch": 6}
    config.write_text(yaml.safe_dump(whole))
    checkpoints = members_of(fit, config)
    capsys.readouterr()
    assert main(["ensemble", "--ckpts", *checkpoints]) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"│ \S.*?\s+│\s+([\d.]+) │\s+[\d.]+ │\s+([\d.]+) │", printed)
    assert "colors / truth's" in printed
    assert float(rows[3][1]) == 0, "doing nothing has no colors"
    assert float(rows[2][0]) >= min(float(row[0]) for row in rows[:2]) - 0.01

    gray = make_images(3, 90, 57, folder="gray")  # of another size than those of the training
    for path in gray.iterdir():
        image = Image.open(path).convert("L")
        image.putalpha(Image.fromarray(np.uint8(255 * (np.mgrid[:57, :90][1] >= 20))))
        image.save(path)
    words = ["ensemble", "--ckpts", *checkpoints, "--input", str(gray)]
    assert main([*words, "--output", "colored", "--min_confidence", "0"]) == 0
    assert "Colors are found at 24 pixels" in capsys.readouterr().out
    assert main(["predict", "--ckpt_path", checkpoints[0], "--input", str(gray), "--output", "alone"]) == 0
    for name in ("000.png", "001.png", "002.png"):
        source, colored = read_image(gray / name), read_image(f"colored/{name}")
        spread = np.asarray(Image.open(f"colored/{name.replace('.', '.uncertainty.')}"))
        assert colored.pixels.shape == (57, 90, 3) and spread.shape == (57, 90)
        assert np.array_equal(colored.alpha, source.alpha)
        assert spread.max() > 0
        assert not np.array_equal(colored.pixels, read_image(f"alone/{name}").pixels)
        assert np.abs(lightness(colored.pixels) - lightness(source.pixels)).max() < 1.5
    manifest = json.loads(Path("colored/pairs/manifest.json").read_text())
    assert manifest["kind"] == "lightness"
    assert len(manifest["pairs"]) == 3
    seen = np.asarray(Image.open("colored/pairs/inputs/002.png"))
    assert (seen[:, :20] == 255).all(), "transparency is white, as it is in training"
    fit(config, "more", "--data.extra_pairs", "colored/pairs")
    assert "11 train (3 of them extra pairs)" in capsys.readouterr().out

    assert main(["inspect", "--ckpt_path", checkpoints[0], "--maps", "1"]) == 0
    made = {path.name for path in Path("runs/1/latest/inspect").iterdir()}
    assert len(made) == 4 and {"filters.png", "worst.png", "worst.csv"} < made

    Path("hints.json").write_text('{"000.png": [{"x": 45, "y": 30, "color": "#ff0000"}]}')
    assert main([*words, "--output", "hinted", "--hints", "hints.json", "--size", "0"]) == 0
    assert main([*words, "--output", "large", "--size", "0"]) == 0
    for name, same in (("000.png", False), ("001.png", True)):  # the second has no hints
        assert np.array_equal(*(np.asarray(Image.open(f"{folder}/{name}")) for folder in ("hinted", "large"))) == same
    other = torch.load(checkpoints[1], weights_only=True)
    other["config"] = other["config"].replace("GrayToColor", "LinesToColor")
    torch.save(other, "other.ckpt")
    assert main(["ensemble", "--ckpts", checkpoints[0], "other.ckpt"]) == 2
    assert "not trained for one task" in capsys.readouterr().err
