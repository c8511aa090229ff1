"""bf16-mixed against 32, with clipping, by the real command: what a CPU can tell of mixed precision."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

NETWORK = {"class_path": "project.networks.UNet", "init_args": {"widths": [4, 6], "norm": "batch"}}
JUDGE = {"in_channels": 6, "width": 4, "layers": 2, "norm": "batch"}
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "momentum": 0.9}}
MODELS = {
    "unet": {"class_path": "project.models.ImageRestorer", "init_args": {"network": NETWORK, "optimizer": SGD}},
    "gan": {
        "class_path": "project.models.GANColorizer",
        "init_args": {
            "space": "rgb",
            "generator": NETWORK,
            "discriminator": {"class_path": "project.networks.PatchGAN", "init_args": JUDGE},
            "adversarial": {"class_path": "project.models.LeastSquares"},
            "reconstruction_weight": 5.0,
            "generator_optimizer": SGD,
            "discriminator_optimizer": SGD,
        },
    },
}
LIMIT = 0.05


@pytest.fixture(params=MODELS)
def small_model(request: pytest.FixtureRequest) -> dict[str, Any]:
    return MODELS[request.param]


def _columns(run: Path) -> dict[str, list[float]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows if row[key]] for key in rows[0]}


def test_bf16_mixed_trains_as_32_does(small):
    words = ["--gradient_clipping.norm", str(LIMIT), "--trainer.precision"]
    whole, mixed = small("whole", *words, "32-true"), small("mixed", *words, "bf16-mixed")
    first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, mixed))
    changed = 0
    for name, value in first["current_model_state"].items():
        other = second["current_model_state"][name]
        assert other.dtype == value.dtype and bool(other.isfinite().all()), name
        changed += not torch.equal(value, other)
    assert changed, "nothing was computed in bfloat16"
    one, other = _columns(whole), _columns(mixed)
    networks = [key for key in one if key.startswith("grad/") and key.endswith("_norm")]
    assert len(networks) == (2 if "grad/discriminator_norm" in one else 1)
    for key in networks:  # before clipping, and above the limit in every step: a step's length is the limit's
        assert other[key][0] == pytest.approx(one[key][0], rel=0.05)
        assert min(one[key]) > LIMIT
        assert set(other[key.replace("_norm", "_clipped")]) == {1.0}
    assert other["train/loss"] == pytest.approx(one["train/loss"], rel=0.05)
    assert other["val/psnr"] == pytest.approx(one["val/psnr"], abs=0.3)
    assert other["val/psnr_baseline"] == one["val/psnr_baseline"], "scores are computed in 32"
