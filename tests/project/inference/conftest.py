"""Untrained checkpoints of models whose output everybody knows, and small runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from skimage.color import rgb2lab
from torch import nn

from project.__main__ import main
from project.models import ImageRestorer


@pytest.fixture
def save_checkpoint(tmp_path) -> Callable[..., Path]:
    """What `fit` leaves of a model, untrained: save_checkpoint(model, described, {"crop": 32}) -> run/.../best.ckpt."""

    def save(model: LightningModule, described: dict, data: dict, **more) -> Path:
        config = yaml.safe_dump({"name": "tiny", "model": described, "data": data})
        path = tmp_path / "run" / "checkpoints" / "best.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / "config.yaml").write_text(config)
        torch.save({"state_dict": model.state_dict(), "config": config, **more}, path)
        return path

    return save


@pytest.fixture
def lightness() -> Callable[[np.ndarray], np.ndarray]:
    """CIELAB's L by another library: uint8 (H, W), (H, W, 1) or (H, W, 3) -> (H, W)."""

    def measure(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        return rgb2lab(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))[..., 0]

    return measure


def describe(layer: nn.Conv2d) -> dict:
    """The model section of a configuration."""
    sizes = {"in_channels": layer.in_channels, "out_channels": layer.out_channels, "kernel_size": 1}
    network = {"class_path": "torch.nn.Conv2d", "init_args": sizes}
    return {"class_path": "project.models.ImageRestorer", "init_args": {"network": network}}


@pytest.fixture
def checkpoint(save_checkpoint) -> str:
    """A checkpoint of the negative in color: 1 - x, exactly."""
    layer = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        layer.weight.copy_(-torch.eye(3)[:, :, None, None])
        layer.bias.fill_(1)
    return str(save_checkpoint(ImageRestorer(layer), describe(layer), {"channels": 3}))


@pytest.fixture
def coloring_checkpoint(save_checkpoint) -> Callable[..., str]:
    """Makes a checkpoint of a network that colors: coloring_checkpoint("GrayToColor", "SpatialHints", crop=32).

    Its output is the condition in brown, and on top of it the colors of the first four planes of hints.
    """

    def make(maker: str, hints: str | None = None, planes: int = 0, **data) -> str:
        layer = nn.Conv2d(1 + planes, 3, 1)
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[:, 0, 0, 0] = torch.tensor([0.9, 0.6, 0.4])
            if planes:
                layer.weight[:, 1:4, 0, 0] = torch.eye(3)
        options = {"colors": planes // 4} if hints == "PaletteHints" else {}
        named = {"class_path": f"project.data.pairs.{hints}", "init_args": options} if hints else None
        pairs = {"class_path": f"project.data.pairs.{maker}", "init_args": {"hints": named}}
        return str(save_checkpoint(ImageRestorer(layer), describe(layer), {"channels": 3, "pairs": pairs, **data}))

    return make


@pytest.fixture
def config(tmp_path: Path, make_images) -> Path:
    """A denoiser of a few steps on twenty images."""
    network = {"widths": [6, 9], "norm": "group", "stem": 2, "residual": True}
    model = {
        "network": {"class_path": "project.networks.UNet", "init_args": network},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}},
    }
    noise = {"class_path": "project.data.pairs.GaussianNoise", "init_args": {"sigma": 50.0}}
    data = {"root": str(make_images(20, 52, 41)), "fractions": [0.4, 0.5, 0.1], "pairs": noise}
    tree = {
        "model": {"class_path": "project.models.ImageRestorer", "init_args": model},
        "data": {**data, "crop": 24, "batch_size": 4, "num_workers": 0},
        "trainer": {"accelerator": "cpu", "max_steps": 12},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def fit() -> Callable[..., Path]:
    """Trains, and returns the run's folder: fit(config, "name", "--key", "value")."""

    def run(config: Path, name: str, *words: str) -> Path:
        assert main(["fit", "--config", str(config), "--wandb", "off", "--name", name, *words]) == 0
        return Path("runs", name, "latest").resolve()

    return run
