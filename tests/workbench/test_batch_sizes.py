"""Trained with one batch size, scored and restored with others, resumed with a third: the same answers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from project.__main__ import main


@pytest.fixture
def run(tmp_path: Path, make_images) -> Path:
    network = {"class_path": "project.networks.UNet", "init_args": {"widths": [6, 9], "norm": "batch"}}
    model = {"class_path": "project.models.ImageRestorer", "init_args": {"network": network}}
    data = {"root": str(make_images(10, 150, 100)), "crop": 24, "batch_size": 4, "num_workers": 0}
    data |= {"fractions": [0.4, 0.3, 0.3], "crops_per_image": 6}
    path = tmp_path / "tiny.yaml"
    trainer = {"accelerator": "cpu", "max_steps": 6}
    path.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    assert main(["fit", "--config", str(path), "--wandb", "off"]) == 0
    return Path("runs/tiny/latest").resolve()


def scores(checkpoint: Path, *words: str) -> float:
    before = set(Path("runs").glob("*/*-test"))
    assert main(["test", "--ckpt_path", str(checkpoint), *words]) == 0
    (made,) = set(Path("runs").glob("*/*-test")) - before
    with (made / "metrics.csv").open(newline="") as file:
        return [float(row["test/psnr"]) for row in csv.DictReader(file) if row.get("test/psnr")][-1]


def restored(checkpoint: Path, batch: int) -> list[np.ndarray]:
    words = ["--input", "pictures", "--output", f"by_{batch}", "--tile", "64", "--overlap", "8", "--batch", str(batch)]
    assert main(["predict", "--ckpt_path", str(checkpoint), *words]) == 0
    return [np.asarray(Image.open(path)).astype(int) for path in sorted(Path(f"by_{batch}").glob("*.png"))]


def test_no_answer_depends_on_a_batch_size(run):
    checkpoint = run / "checkpoints" / "best.ckpt"
    one, three = scores(checkpoint), scores(checkpoint, "--data.eval_batch_size", "3")
    assert one == pytest.approx(three, abs=1e-4)
    for single, several in zip(restored(checkpoint, 1), restored(checkpoint, 3), strict=True):
        assert np.abs(single - several).max() <= 1  # another order of summing may round otherwise

    words = ["--resume", "latest", "--data.batch_size", "3", "--trainer.max_steps", "9", "--wandb", "off"]
    before = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert main(["fit", "--name", "tiny", *words]) == 0
    after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (before["global_step"], after["global_step"]) == (6, 9)
    assert scores(run / "checkpoints" / "last.ckpt") == pytest.approx(
        scores(run / "checkpoints" / "last.ckpt", "--data.eval_batch_size", "3", "--data.batch_size", "5"), abs=1e-4
    )
