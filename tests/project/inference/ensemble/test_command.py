"""The command on two real runs: scores, images, maps, and pairs for a further run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from project.__main__ import main


@pytest.fixture
def config(tmp_path: Path, make_images) -> Path:
    """A denoiser of a few steps."""
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [6, 9], "norm": "none", "residual": True}}
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}}
    model = {"class_path": "project.models.ImageRestorer", "init_args": {"network": network, "optimizer": adam}}
    data = {"root": str(make_images(20, 52, 41)), "crop": 24, "batch_size": 7, "num_workers": 0}
    path = tmp_path / "tiny.yaml"
    trainer = {"accelerator": "cpu", "max_steps": 12}
    path.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    return path


@pytest.fixture
def checkpoints(config: Path) -> list[str]:
    """Two runs from different seeds."""
    found = []
    for seed in ("1", "2"):
        assert main(["fit", "--config", str(config), "--wandb", "off", "--seed_everything", seed, "--name", seed]) == 0
        found.append(str(Path("runs", seed, "latest").resolve() / "checkpoints" / "best.ckpt"))
    return found


def table(text: str) -> dict[str, float]:
    """The PSNR of each row."""
    rows = re.findall(r"│ (\S.*?)\s+│\s+([\d.]+) │", text)
    return {name: float(psnr) for name, psnr in rows}


def test_members_are_scored_beside_the_ensemble_and_restore_pictures(checkpoints, capsys):
    capsys.readouterr()
    for words in ([], ["--average", "score"], ["--average", "agreement", "--turns", "true"]):
        assert main(["ensemble", "--ckpts", *checkpoints, *words]) == 0
        *members, together, nothing = table(capsys.readouterr().out).values()
        # The error of a mean is at most the members' mean error.
        assert len(members) == 2 and together >= min(members) and nothing > 10
    assert main(["test", "--ckpt_path", checkpoints[0]]) == 0
    assert f"{members[0]:.2f}" in capsys.readouterr().out

    words = ["--input", "pictures", "--output", "restored", "--min_confidence", "0"]
    assert main(["ensemble", "--ckpts", *checkpoints, *words]) == 0
    names = sorted(path.name for path in Path("pictures").iterdir())
    assert sorted(path.name for path in Path("restored/pairs/targets").iterdir()) == names
    for name in names[:3]:
        restored, apart = (Image.open(f"restored/{file}") for file in (name, name.replace(".", ".disagreement.")))
        assert restored.size == apart.size == Image.open(f"pictures/{name}").size and apart.mode == "L"
        assert np.array_equal(np.asarray(restored), np.asarray(Image.open(f"restored/pairs/targets/{name}")))
    manifest = json.loads(Path("restored/pairs/manifest.json").read_text())
    assert [pair["file"] for pair in manifest["pairs"]] == names and len(manifest["members"]) == 2
    assert all(0 < pair["confidence"] < 1 for pair in manifest["pairs"])
    pairs = ["--data.root", "restored/pairs/inputs", "--data.target_root", "restored/pairs/targets"]
    given = ["--data.pairs", "project.data.pairs.Given", "--trainer.fast_dev_run", "1"]
    assert main(["fit", "--config", "tiny.yaml", *pairs, *given]) == 0

    limit = sorted(pair["confidence"] for pair in manifest["pairs"])[10]
    words[-1] = str(limit)
    assert main(["ensemble", "--ckpts", *checkpoints, *words[:3], "surest", *words[4:]]) == 0
    assert len(list(Path("surest/pairs/inputs").iterdir())) == 10


def test_the_snapshots_of_one_run_answer_together(config, capsys):
    whole = yaml.safe_load(config.read_text())
    whole["model"]["init_args"]["scheduler"] = {
        "class_path": "project.models.WarmupCosine",
        "init_args": {"cycles": 3, "warmup": 0},
    }
    whole["checkpoint"] = {"snapshots": "cycles"}
    config.write_text(yaml.safe_dump(whole))
    assert main(["fit", "--config", str(config), "--wandb", "off", "--name", "cycles"]) == 0
    folder = Path("runs", "cycles", "latest").resolve() / "checkpoints"
    pattern = str(folder / "snapshot-*.ckpt")  # as a shell leaves it that knows no patterns
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"python -m project ensemble --ckpts {Path(pattern).relative_to(Path.cwd())}" in shown
    assert sorted(path.name for path in folder.glob("snapshot-*")) == [f"snapshot-{n:06d}.ckpt" for n in (4, 8, 12)]
    assert main(["ensemble", "--ckpts", pattern]) == 0
    *members, together, _ = table(capsys.readouterr().out).values()
    assert len(members) == 3 and together >= min(members)
    one = str(folder / "snapshot-000004.ckpt")
    assert main(["test", "--ckpt_path", one]) == 0
    assert f"{members[0]:.2f}" in capsys.readouterr().out
    assert main(["fit", "--ckpt_path", one, "--wandb", "off"]) == 2
    assert "holds weights alone" in (told := capsys.readouterr().err) and "last.ckpt" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ckpts", "a.ckpt"], "One checkpoint is no ensemble"),
        (["--ckpts", "a.ckpt", "b.ckpt", "--input", "x"], "belong together"),
        (["--ckpts", "a.ckpt", "b.ckpt", "--min_confidence", "0.5"], "--input, which is not given"),
        (["--ckpts", "a.ckpt", "b.ckpt"], "There is no checkpoint a.ckpt"),
        (["--ckpts", "snapshot-*.ckpt"], "no checkpoint of that pattern"),
        (["--ckpts", "a.ckpt", "b.ckpt", "--palette", "red"], "--input, which is not given"),
        (["--ckpts", "a.ckpt", "b.ckpt", "--avrage", "plain"], "Did you mean --average?"),
    ],
)
def test_a_mistake_is_told_in_a_few_lines(capsys, words, told):
    assert main(["ensemble", *words]) == 2
    assert told in capsys.readouterr().err
