"""A model whose output everybody knows: the negative of an image."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from torch import nn


class Model(LightningModule):
    """Any network, as a model that a checkpoint can name."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)

    restore = forward


def save_checkpoint(path: Path, network: nn.Module, class_path: str, **data) -> Path:
    """What `fit` would write for that network; its class takes in_channels, out_channels and kernel_size."""
    arguments = {"in_channels": network.in_channels, "out_channels": network.out_channels, "kernel_size": 1}
    described = {"network": {"class_path": class_path, "init_args": arguments}}
    config = {"model": {"class_path": f"{__name__}.Model", "init_args": described}, "data": {"channels": 3, **data}}
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "config": yaml.safe_dump(config)}, path)
    return path


def negative(channels: int) -> nn.Conv2d:
    """1 - x, exactly; further input channels count for nothing."""
    layer = nn.Conv2d(channels, channels, 1)
    with torch.no_grad():
        layer.weight.copy_(-torch.eye(channels)[:, :, None, None])
        layer.bias.fill_(1)
    return layer


@pytest.fixture
def checkpoint(tmp_path) -> str:
    """A checkpoint of the negative, in color."""
    return str(save_checkpoint(tmp_path / "negative.ckpt", negative(3), "torch.nn.Conv2d"))


def tinting(in_channels: int) -> nn.Conv2d:
    """The condition in brown, and on top of it the colors of the first four planes of hints."""
    layer = nn.Conv2d(in_channels, 3, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[:, 0, 0, 0] = torch.tensor([0.9, 0.6, 0.4])
        if in_channels > 1:
            layer.weight[:, 1:4, 0, 0] = torch.eye(3)
    return layer


@pytest.fixture
def coloring_checkpoint(tmp_path) -> Callable[..., str]:
    """Makes a checkpoint of a network that colors: coloring_checkpoint("GrayToColor", "SpatialHints", crop=32)."""

    def make(maker: str, hints: str | None = None, planes: int = 0, **data) -> str:
        options = {"colors": planes // 4} if hints == "PaletteHints" else {}
        named = {"class_path": f"project.data.pairs.{hints}", "init_args": options} if hints else None
        pairs = {"class_path": f"project.data.pairs.{maker}", "init_args": {"hints": named}}
        network = tinting(1 + planes)
        return str(save_checkpoint(tmp_path / "colors.ckpt", network, "torch.nn.Conv2d", pairs=pairs, **data))

    return make
