"""Faults of batches, each planted in more than one way and found first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from project.data.loader import ResumableLoader, TrainingSampler
from project.data.pairs import GaussianNoise
from project.networks.normalize import Normalize


def _without_red(x, y):
    x = x.clone()
    x[:, 0] = 0.25
    return x, y


def _same_noise(x, y):
    return y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(3)), y


SPOILT = {
    "hole": ("input-nonfinite", lambda x, y: (x.masked_fill(x > 0.9, float("nan")), y)),
    "logarithm": ("input-nonfinite", lambda x, y: (torch.log(x), y)),
    "division": ("input-nonfinite", lambda x, y: (x, y / (y > 0.1))),
    "both-255": ("input-range", lambda x, y: (x * 255, y * 255)),
    "input-255": ("input-range", lambda x, y: (x * 255, y)),
    "twice": ("input-range", lambda x, y: (x / 255, y / 255)),
    "target-twice": ("input-range", lambda x, y: (x, y / 255)),
    "signed": ("input-range", lambda x, y: (x * 2 - 1, y * 2 - 1)),
    "channel": ("input-constant", _without_red),
    "target": ("input-constant", lambda x, y: (x, torch.full_like(y, 0.5))),
    "noise": ("batch-repeated", _same_noise),
}


@pytest.mark.planted
@pytest.mark.parametrize(("code", "change"), SPOILT.values(), ids=SPOILT)
def test_spoilt_batches(faults_of, kit, code, change):
    found = faults_of(pairs=kit.Spoilt(change))
    assert found[0] == code
    assert code != "input-nonfinite" or found == [code]


@pytest.mark.healthy
@pytest.mark.parametrize("sigma", [0.0, 10.0, 75.0])
def test_noise_that_is_not_clipped_is_no_other_range(faults_of, kit, sigma):
    assert faults_of(pairs=kit.Spoilt(lambda x, y: (x, y), sigma)) == []


class Normalizing(nn.Module):
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
def test_a_network_that_does_not_center_its_input(faults_of, normalize):
    assert faults_of(Normalizing(normalize))[0] == "input-not-centred"


@pytest.mark.planted("input-not-centred")
def test_the_range_zero_one_is_not_centered(faults_of):
    assert faults_of(input_range="zero_one")[0] == "input-not-centred"


@pytest.mark.healthy
def test_the_range_minus_one_one_is_a_choice(faults_of):
    assert faults_of(input_range="minus_one_one") == []


@pytest.mark.healthy
def test_noise_maps_and_stacked_pixels_are_not_taken_for_the_image(faults_of, kit):
    assert faults_of(kit.small_unet(in_channels=4, stem=2), pairs=GaussianNoise(150, noise_map=True)) == []


@pytest.mark.planted("batch-repeated")
@pytest.mark.parametrize("how", ["epoch", "order", "batch"])
def test_batches_that_come_again(faults_of, monkeypatch, how):
    epochs, passes = TrainingSampler.__iter__, ResumableLoader.__iter__

    def again(self):
        first = next(passes(self))
        return (first for _ in range(5))

    replaced = {
        "epoch": (TrainingSampler, "set_epoch", lambda self, epoch: None),
        "order": (TrainingSampler, "__iter__", lambda self: iter(sorted(epochs(self)))),  # with other crops
        "batch": (ResumableLoader, "__iter__", again),
    }
    monkeypatch.setattr(*replaced[how])
    assert faults_of()[0] == "batch-repeated"


@pytest.mark.healthy
@pytest.mark.parametrize("data", [{"batch_size": 1}, {"batch_size": 20, "crop": 41}, {"crops_per_image": 8}])
def test_few_and_small_batches_are_not_taken_for_repeated_ones(faults_of, data):
    assert faults_of(**data) == []
