"""Faults of batches, each planted in more than one way and named first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from project.data.loader import ResumableLoader, TrainingSampler
from project.networks import UNet
from project.networks.normalize import Normalize


@pytest.mark.planted("input-nonfinite")
@pytest.mark.parametrize(
    "change",
    {
        "hole": lambda x, y: (x.masked_fill(x > 0.9, float("nan")), y),
        "logarithm": lambda x, y: (torch.log(x), y),
        "target": lambda x, y: (x, y / (y > 0.1)),
    }.values(),
    ids=["hole", "logarithm", "target"],
)
def test_values_that_are_no_numbers(look, kit, change):
    found = look(pairs=kit.Spoilt(change))
    assert kit.faults(found) == ["input-nonfinite"]


@pytest.mark.planted("input-range")
@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x * 255, y * 255),
        lambda x, y: (x * 255, y),
        lambda x, y: (x / 255, y / 255),
        lambda x, y: (x, y / 255),
        lambda x, y: (x * 2 - 1, y * 2 - 1),
    ],
    ids=["both", "input", "twice", "target-twice", "signed"],
)
def test_pictures_of_another_range(look, kit, change):
    found = kit.faults(look(pairs=kit.Spoilt(change)))
    assert found[0] == "input-range"


@pytest.mark.healthy
@pytest.mark.parametrize("sigma", [0.0, 10.0, 75.0])
def test_noise_that_is_not_clipped_is_no_other_range(look, kit, sigma):
    assert kit.faults(look(pairs=kit.Spoilt(lambda x, y: (x, y), sigma))) == []


def _without_red(x, y):
    x = x.clone()
    x[:, 0] = 0.25
    return x, y


@pytest.mark.planted("input-constant")
@pytest.mark.parametrize("change", [_without_red, lambda x, y: (x, torch.full_like(y, 0.5))], ids=["channel", "target"])
def test_nothing_to_see(look, kit, change):
    found = kit.faults(look(pairs=kit.Spoilt(change)))
    assert found[0] == "input-constant"


class Centerd(nn.Module):
    """Whatever normalization is given, before two convolutions."""

    def __init__(self, normalize: nn.Module) -> None:
        super().__init__()
        self.scale = normalize
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, x):
        return x + self.body(self.scale(x))


@pytest.mark.planted("input-not-centred")
@pytest.mark.parametrize(
    "normalize", [nn.Identity(), Normalize(3, 0.5, 0.01), Normalize(3, 3.0, 0.25)], ids=["none", "spread", "mean"]
)
def test_a_network_that_does_not_center_its_input(look, kit, normalize):
    found = kit.faults(look(Centerd(normalize)))
    assert found[0] == "input-not-centred"


@pytest.mark.planted("input-not-centred")
def test_the_range_zero_one_is_not_centerd(look, kit):
    assert kit.faults(look(input_range="zero_one"))[0] == "input-not-centred"


@pytest.mark.healthy
def test_the_range_minus_one_one_is_a_choice(look, kit):
    assert kit.faults(look(input_range="minus_one_one")) == []


@pytest.mark.healthy
def test_noise_maps_and_stacked_pixels_are_not_taken_for_the_picture(look, kit):
    from project.data.pairs import GaussianNoise

    network = UNet(in_channels=4, widths=[8, 12], norm="none", residual=True, stem=2)
    assert kit.faults(look(network, pairs=GaussianNoise(150, noise_map=True))) == []


@pytest.mark.planted("batch-repeated")
def test_an_order_that_never_changes(look, kit, monkeypatch):
    monkeypatch.setattr(TrainingSampler, "set_epoch", lambda self, epoch: None)
    assert kit.faults(look())[0] == "batch-repeated"


@pytest.mark.planted("batch-repeated")
def test_the_same_order_with_other_crops(look, kit, monkeypatch):
    epochs = TrainingSampler.__iter__
    monkeypatch.setattr(TrainingSampler, "__iter__", lambda self: iter(sorted(epochs(self))))
    assert kit.faults(look())[0] == "batch-repeated"


@pytest.mark.planted("batch-repeated")
def test_the_same_batch_all_through_an_epoch(look, kit, monkeypatch):
    passes = ResumableLoader.__iter__

    def again(self):
        first = next(passes(self))
        return (first for _ in range(5))

    monkeypatch.setattr(ResumableLoader, "__iter__", again)
    assert kit.faults(look())[0] == "batch-repeated"


@pytest.mark.planted("batch-repeated")
def test_the_same_noise_in_every_batch(look, kit):
    def noisy(x, y):
        return y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(3)), y

    assert kit.faults(look(pairs=kit.Spoilt(noisy)))[0] == "batch-repeated"


@pytest.mark.healthy
@pytest.mark.parametrize("data", [{"batch_size": 1}, {"batch_size": 20, "crop": 41}, {"crops_per_image": 8}])
def test_few_and_small_batches_are_not_taken_for_repeated_ones(look, kit, data):
    assert kit.faults(look(**data)) == []
