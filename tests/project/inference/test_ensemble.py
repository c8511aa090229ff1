"""Averages against plain NumPy, the eight positions; the command on real runs, on to pseudo-labels and snapshots."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from project.__main__ import main
from project.inference.ensemble import GAIN, Ensemble, d4_inverse, d4_transform
from project.inference.image_files import read_image


class Adds(nn.Module):
    """A member that adds a number, and a slope from left to right."""

    def __init__(self, number: float, slope: float = 0.0) -> None:
        super().__init__()
        self.number, self.slope = number, slope

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number + self.slope * torch.linspace(0, 1, x.shape[-1])


def image() -> Tensor:
    return torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) / 2 + 0.2


def average(ensemble: Ensemble, x: Tensor) -> Tensor:
    return ensemble(x)[:, : -Ensemble.extra_channels]


def test_members_are_averaged_and_their_spread_is_the_uncertainty():
    x = image()
    torch.testing.assert_close(average(Ensemble([Adds(0.0), Adds(0.03), Adds(0.06)]), x), x + 0.03)
    extra = Ensemble([Adds(0.0), Adds(0.03)])(x)[:, 3:]
    torch.testing.assert_close(extra, torch.tensor([GAIN * 0.015, 0.015]).view(1, 2, 1, 1).expand(2, 2, 5, 7))
    members = [nn.Conv2d(3, 3, 1) for _ in range(4)]
    outputs = np.stack([member(x).detach().clamp(0, 1).numpy() for member in members])
    expected = np.sqrt((outputs.std(axis=0) ** 2).mean(axis=1))
    torch.testing.assert_close(Ensemble(members)(x)[:, -1], torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_eight_positions_are_all_different_and_come_back():
    x = image()
    seen = [d4_transform(x, position) for position in range(8)]
    assert [one.shape[-2:] == (7, 5) for one in seen] == [False, True] * 4
    square = x[..., :5]
    views = [d4_transform(square, position) for position in range(8)]
    assert all(not torch.equal(a, b) for n, a in enumerate(views) for b in views[:n])
    for position in range(8):
        assert torch.equal(d4_inverse(d4_transform(x, position), position), x)


def test_what_a_member_does_to_one_side_is_averaged_out_by_test_time_augmentation():
    x = image()
    sloped = Adds(0.0, slope=0.1)
    ensemble = Ensemble([sloped], tta=True)
    assert ensemble.outputs(x).shape == (8, 2, 3, 5, 7)
    torch.testing.assert_close(average(ensemble, x), x + 0.05, atol=1e-6, rtol=0)
    assert not torch.allclose(sloped(x), x + 0.05)


# The command


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
    cycles = ["--model.scheduler.class_path", "project.models.WarmupCosine", "--model.scheduler.init_args.cycles", "3"]
    cycles += ["--model.scheduler.init_args.warmup", "0", "--checkpoint.snapshots", "cycles"]
    folder = fit(config, "cycles", *cycles) / "checkpoints"
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


@pytest.mark.slow
def test_two_processes_keep_the_same_snapshots_of_the_same_images(config, make_images):
    """With extra pairs, as one process with a batch twice as large."""
    sources = sorted(make_images(5, 50, 44, folder="extra/inputs", seed=9).iterdir())
    make_images(5, 50, 44, folder="extra/targets", seed=9)
    rows = [{"file": path.name, "from": str(path), "digest": "", "confidence": 1.0} for path in sources]
    Path("extra/manifest.json").write_text(json.dumps({"members": [], "kind": "pictures", "pairs": rows}))
    whole = yaml.safe_load(config.read_text())
    whole["model"]["init_args"] |= {
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}},
        "scheduler": {"class_path": "project.models.WarmupCosine", "init_args": {"cycles": 3, "warmup": 0.0}},
    }
    targets = str(make_images(20, 52, 41, folder="targets"))
    whole["data"] |= {"pairs": None, "target_root": targets, "extra_pairs": "extra", "crops_per_image": 4}
    config.write_text(yaml.safe_dump(whole | {"checkpoint": {"snapshots": "cycles", "most": 2}}))
    found = []
    for processes, strategy in (("1", "auto"), ("2", "ddp")):
        words = ["--config", str(config), "--wandb", "off", "--name", processes, "--trainer.strategy", strategy]
        words += ["--trainer.devices", processes, "--data.batch_size", str(12 // int(processes))]
        command = [sys.executable, "-m", "project", "fit", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Images: 13 train (5 of them extra pairs), 10 val, 2 test") == 1
        paths = sorted(Path("runs", processes, "latest", "checkpoints").glob("snapshot-*"))
        found.append({path.name: torch.load(path, weights_only=True) for path in paths})
    one, two = found
    assert list(one) == list(two) == ["snapshot-000008.ckpt", "snapshot-000012.ckpt"]
    for name in one:
        assert one[name]["ImageDataModule"]["splits"] == two[name]["ImageDataModule"]["splits"]
        torch.testing.assert_close(two[name]["state_dict"], one[name]["state_dict"], rtol=0, atol=1e-5)
