"""The examples: two tasks that are not image to image, through the same commands, and deblurring."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.classification.classifier import Classifier
from examples.classification.data import ImageClasses
from examples.deblur.blur import Blur
from examples.deblur.gradient_loss import GradientL1
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
    for command in (["predict", "--input", "nowhere"], ["export"], ["inspect"]):
        assert main([*command, "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--output", "out"]) == 2
        printed = capsys.readouterr()
        assert f"{command[0]} is for image-to-image models" in printed.err and printed.out == ""


def test_the_segmentation_loss_is_cross_entropy_and_dice():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(3, (2, 4, 5), generator=generator)
    exponents = np.exp(logits.numpy())
    probability = exponents / exponents.sum(1, keepdims=True)
    truth = np.eye(3)[target.numpy()].transpose(0, 3, 1, 2)
    entropy = -np.log((probability * truth).sum(1)).mean()
    dice = (2 * (probability * truth).sum((0, 2, 3)) + 1) / ((probability + truth).sum((0, 2, 3)) + 1)
    assert Segmenter().loss(logits, target).item() == pytest.approx(entropy + 1 - dice.mean(), rel=1e-9)


def test_statistics_are_those_of_the_training_images_alone(classification):
    data = ImageClasses("classes", size=16, batch_size=8)
    data.setup("fit")
    assert [len(data.sets[name]) for name in ("train", "val", "test")] == [28, 8, 4]
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


@pytest.mark.parametrize("root", ["missing", "empty"])
def test_a_folder_without_classes_is_a_short_error(root, classification, capsys):
    Path("empty").mkdir()
    assert main(["check", *classification, "--data.root", root]) == 2
    printed = capsys.readouterr().err
    assert root in printed and "a folder of images for each class" in printed and "Errno" not in printed


def test_the_blur_has_the_width_it_names():
    point = torch.zeros(1, 1, 41, 45)
    point[..., 20, 22] = 1
    blurred, _ = Blur(radius=2.0, noise=0.0).degrade(point, None)
    rows = torch.arange(41) - 20.0
    spread = (blurred.sum((0, 1, 3)) * rows**2).sum() / blurred.sum()
    assert math.isclose(spread.sqrt(), 2.0, rel_tol=0.02)


def test_the_loss_weighs_edges():
    target, output = torch.zeros(2, 1, 1, 4, 6)
    output[..., 3:] = 1.0  # half of the pixels off by one, and one edge of five columns where there is none
    assert torch.isclose(GradientL1(weight=2.0)(output, target), torch.tensor(0.5 + 2 * 1 / 5))


def test_deblurring_trains(make_images):
    words = ["--trainer.fast_dev_run", "2", "--trainer.accelerator", "cpu", "--data.root", str(make_images(10, 70, 66))]
    assert main(["fit", "--config", str(EXAMPLES / "deblur" / "deblur.yaml"), *words]) == 0
