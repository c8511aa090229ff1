from __future__ import annotations

import math
from pathlib import Path

import torch

from examples.deblur.blur import Blur
from examples.deblur.gradient_loss import GradientL1
from project.__main__ import main

CONFIG = Path(__file__).parents[2] / "examples" / "deblur" / "deblur.yaml"


def test_the_blur_has_the_width_it_names():
    point = torch.zeros(1, 1, 41, 45)
    point[..., 20, 22] = 1
    blurred, further = Blur(radius=2.0, noise=0.0).degrade(point, None)
    assert further is None
    rows = torch.arange(41) - 20.0
    spread = (blurred.sum((0, 1, 3)) * rows**2).sum() / blurred.sum()
    assert math.isclose(spread.sqrt(), 2.0, rel_tol=0.02)


def test_the_loss_weighs_edges():
    target = torch.zeros(1, 1, 4, 6)
    output = target.clone()
    output[..., 3:] = 1.0  # half of the pixels off by one, and one edge of five columns where there is none
    assert torch.isclose(GradientL1(weight=2.0)(output, target), torch.tensor(0.5 + 2 * 1 / 5))


def test_the_example_trains(make_images):
    words = [
        "--trainer.fast_dev_run",
        "2",
        "--trainer.accelerator",
        "cpu",
        "--data.root",
        str(make_images(10, 70, 66)),
    ]
    assert main(["fit", "--config", str(CONFIG), *words]) == 0
