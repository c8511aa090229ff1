"""Data modules of smooth images, small enough for a test: noisy ones, and ones to color."""

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.models.vgg import cfgs, make_layers

from project.data.batch import Batch


class Batches(L.LightningDataModule):
    """The same batches in training, validation and testing."""

    def loader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


class TinyData(Batches):
    """Six batches of two 9 x 14 images."""

    def __init__(self, batches: int = 6) -> None:
        super().__init__()
        self.normalization = {"input": ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]), "target": ([0.5] * 3, [0.25] * 3)}
        generator = torch.Generator().manual_seed(0)
        self.batches = []
        for number in range(batches):
            ramp = torch.linspace(0, 1, 9)[:, None] * torch.linspace(1, 0, 14)[None]
            target = torch.stack([ramp.expand(3, 9, 14), 1 - ramp.expand(3, 9, 14) * number / batches])
            noisy = target + 0.2 * torch.randn(target.shape, generator=generator)
            self.batches.append(Batch(noisy, target, noisy, torch.arange(2)))


class ColorData(Batches):
    """Batches of three 13 x 22 images: lightness and four planes of hints in, color out."""

    def __init__(self, batches: int = 3) -> None:
        super().__init__()
        self.normalization = {
            "input": ([0.5, 0.1, 0.2, 0.3, 0.0], [0.25, 0.5, 0.6, 0.7, 1.0]),
            "target": ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]),
        }
        self.pairs = SimpleNamespace(keeps_lightness=True, hints=SimpleNamespace(channels=4))
        generator = torch.Generator().manual_seed(0)
        self.batches = []
        for _ in range(batches):
            coarse = torch.rand(3, 3, 4, 5, generator=generator)
            target = torch.nn.functional.interpolate(coarse, (13, 22), mode="bilinear")
            lightness = target.mean(dim=1, keepdim=True)
            hints = torch.rand(3, 4, 13, 22, generator=generator)
            given = torch.cat([lightness, hints], dim=1)
            self.batches.append(Batch(given, target, lightness.expand(-1, 3, -1, -1), torch.arange(3)))


@pytest.fixture
def data() -> TinyData:
    return TinyData()


@pytest.fixture
def color_data() -> ColorData:
    return ColorData()


@pytest.fixture
def vgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of VGG19's convolutions, whose classifier is left out to save time."""
    monkeypatch.setattr("torchvision.models.vgg.VGG", VGGFeatures)
    layers = make_layers(cfgs["E"])
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


class VGGFeatures(torch.nn.Module):
    def __init__(self, features: torch.nn.Module, **_: object) -> None:
        super().__init__()
        self.features, self.classifier = features, torch.nn.Identity()


@pytest.fixture
def make_trainer(tmp_path):
    def make(**options) -> L.Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
        quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "default_root_dir": tmp_path}
        return L.Trainer(**{**quiet, **options})

    return make
