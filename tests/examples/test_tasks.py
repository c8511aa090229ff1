"""Two tasks that are not image to image, through the same commands: fitted, resumed, tested and checked."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.classification.classifier import Classifier
from examples.classification.data import ImageClasses
from examples.segmentation.make_shapes import make
from examples.segmentation.segmenter import Segmenter
from project.__main__ import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.fixture
def segmentation() -> list[str]:
    make(Path("shapes"), count=20, side=48)
    data = ["--data.root", "shapes/images", "--data.target_root", "shapes/masks", "--data.crop", "32"]
    return ["--config", str(EXAMPLES / "segmentation" / "segmentation.yaml"), *data, "--data.num_workers", "0"]


@pytest.fixture
def classification() -> list[str]:
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        Path("classes", label).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 100, (13, 17, 3)) + (150 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(Path("classes", label, f"{number}.png"))
    words = ["--config", str(EXAMPLES / "classification" / "classification.yaml"), "--data.root", "classes"]
    return [*words, "--data.batch_size", "8", "--model.init_args.classes", "2", "--data.size", "16"]


@pytest.mark.parametrize(("task", "score"), [("segmentation", "iou"), ("classification", "accuracy")])
def test_a_task_is_fitted_resumed_tested_and_checked(task, score, request, capsys):
    words = [*request.getfixturevalue(task), "--trainer.accelerator", "cpu"]
    assert main(["fit", *words, "--wandb", "off", "--trainer.max_epochs", "1"]) == 0
    run = Path("runs", task, "latest")
    assert main(["fit", "--name", task, "--resume", "latest", "--wandb", "off", "--trainer.max_epochs", "2"]) == 0
    assert len(column(run, f"val/{score}")) == 2 + 1, "a validation an epoch, and that of the best checkpoint"
    for split in ("val", "test"):
        assert column(run, f"{split}/{score}") and column(run, f"{split}/{score}_baseline")
    capsys.readouterr()
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]) == 0
    assert score in capsys.readouterr().out
    assert main(["check", *words]) == 0
    assert "0 faults" in capsys.readouterr().out
    assert main(["export", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]) == 2
    assert "image-to-image" in capsys.readouterr().err


def test_the_segmentation_loss_is_cross_entropy_and_dice():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(3, (2, 4, 5), generator=generator)
    probability = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    truth = np.eye(3)[target.numpy()].transpose(0, 3, 1, 2)
    entropy = -np.log((probability * truth).sum(1)).mean()
    dice = [
        (2 * (probability[:, c] * truth[:, c]).sum() + 1) / (probability[:, c].sum() + truth[:, c].sum() + 1)
        for c in range(3)
    ]
    assert Segmenter().loss(logits, target).item() == pytest.approx(entropy + 1 - np.mean(dice), rel=1e-9)


def test_statistics_are_those_of_the_training_images_alone(classification):
    data = ImageClasses("classes", size=16, batch_size=8)
    data.setup("fit")
    sizes = {name: len(part) for name, part in data.sets.items()}
    assert sizes == {"train": 28, "val": 8, "test": 4}
    pixels = data.sets["train"].tensors[0].numpy() / 255
    np.testing.assert_allclose(data.mean.flatten(), pixels.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(data.std.flatten(), pixels.std((0, 2, 3)), rtol=1e-5)


def test_the_backbone_is_frozen_until_its_epoch():
    model = Classifier(classes=3, unfreeze_epoch=2)
    model.train()
    assert not any(p.requires_grad for p in model.backbone.parameters()) and not model.backbone.bn1.training
    model.unfreeze_epoch = 0
    model.train()
    assert all(p.requires_grad for p in model.backbone.parameters()) and model.backbone.bn1.training
