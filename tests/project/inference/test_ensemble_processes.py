"""Extra pairs and snapshots in two processes, through the real command: as one process with a batch twice as large."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="has no gloo in every build"),
    pytest.mark.slow,
]


def fit(config: Path, name: str, processes: int) -> tuple[str, Path]:
    strategy = "ddp" if processes > 1 else "auto"
    words = ["--name", name, "--data.batch_size", str(12 // processes), "--trainer.devices", str(processes)]
    done = subprocess.run(
        [sys.executable, "-m", "project", "fit", "--config", str(config), *words, "--trainer.strategy", strategy],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, Path("runs", name, "latest").resolve() / "checkpoints"


def test_two_processes_keep_the_same_snapshots_of_the_same_pictures(tmp_path, make_images):
    inputs, targets = make_images(20, 52, 41), make_images(20, 52, 41, folder="targets")
    extra = tmp_path / "extra"
    others = sorted(make_images(25, 50, 44, folder="others").iterdir())[20:]
    for part in ("inputs", "targets"):
        (extra / part).mkdir(parents=True)
        for path in others:
            shutil.copy(path, extra / part)
    rows = [{"file": path.name, "from": str(path), "digest": "", "confidence": 1.0} for path in others]
    (extra / "manifest.json").write_text(json.dumps({"members": [], "kind": "pictures", "pairs": rows}))

    options = {
        "network": {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "none"}},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}},
        "scheduler": {"class_path": "project.models.WarmupCosine", "init_args": {"cycles": 3, "warmup": 0.0}},
    }
    data = {"root": str(inputs), "target_root": str(targets), "extra_pairs": str(extra), "crop": 16}
    whole = {
        "model": {"class_path": "project.models.ImageRestorer", "init_args": options},
        "data": {**data, "crops_per_image": 4, "num_workers": 0},
        "trainer": {"accelerator": "cpu", "max_steps": 9},
        "checkpoint": {"snapshots": "cycles", "most": 2},
        "wandb": "off",
    }
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(whole))
    found = [fit(config, name, processes) for name, processes in (("alone", 1), ("together", 2))]
    for out, folder in found:
        assert out.count("Images: 19 train (5 of them extra pairs), 4 val, 2 test") == 1
        assert [path.name for path in sorted(folder.glob("snapshot-*"))] == [f"snapshot-{n:06d}.ckpt" for n in (6, 9)]
    for name in ("snapshot-000006.ckpt", "snapshot-000009.ckpt"):
        one, two = (torch.load(folder / name, weights_only=True) for _, folder in found)
        assert one["ImageDataModule"]["splits"] == two["ImageDataModule"]["splits"]
        for key, value in one["state_dict"].items():
            torch.testing.assert_close(two["state_dict"][key], value, rtol=0, atol=1e-5)
