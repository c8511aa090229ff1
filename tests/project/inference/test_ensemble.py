"""Averages against plain NumPy, and the eight positions against their definition."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from project.inference.ensemble import GAIN, Ensemble, d4_inverse, d4_transform


class Adds(nn.Module):
    """A member that adds a number, and a slope from left to right."""

    def __init__(self, number: float, slope: float = 0.0) -> None:
        super().__init__()
        self.number, self.slope = number, slope

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number + self.slope * torch.linspace(0, 1, x.shape[-1])


def image() -> Tensor:
    return torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) / 2 + 0.2


def average(ensemble: Ensemble, x: Tensor) -> Tensor:
    return ensemble(x)[:, : -Ensemble.extra_channels]


def test_members_are_averaged_and_their_spread_is_the_uncertainty():
    x = image()
    torch.testing.assert_close(average(Ensemble([Adds(0.0), Adds(0.03), Adds(0.06)]), x), x + 0.03)
    extra = Ensemble([Adds(0.0), Adds(0.03)])(x)[:, 3:]
    torch.testing.assert_close(extra, torch.tensor([GAIN * 0.015, 0.015]).view(1, 2, 1, 1).expand(2, 2, 5, 7))
    members = [nn.Conv2d(3, 3, 1) for _ in range(4)]
    outputs = np.stack([member(x).detach().clamp(0, 1).numpy() for member in members])
    expected = np.sqrt((outputs.std(axis=0) ** 2).mean(axis=1))
    torch.testing.assert_close(Ensemble(members)(x)[:, -1], torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_eight_positions_are_all_different_and_come_back():
    x = image()
    seen = [d4_transform(x, position) for position in range(8)]
    assert [one.shape[-2:] == (7, 5) for one in seen] == [False, True] * 4
    square = x[..., :5]
    views = [d4_transform(square, position) for position in range(8)]
    assert all(not torch.equal(a, b) for n, a in enumerate(views) for b in views[:n])
    for position in range(8):
        assert torch.equal(d4_inverse(d4_transform(x, position), position), x)


def test_what_a_member_does_to_one_side_is_averaged_out_by_test_time_augmentation():
    x = image()
    sloped = Adds(0.0, slope=0.1)
    ensemble = Ensemble([sloped], tta=True)
    assert ensemble.outputs(x).shape == (8, 2, 3, 5, 7)
    torch.testing.assert_close(average(ensemble, x), x + 0.05, atol=1e-6, rtol=0)
    assert not torch.allclose(sloped(x), x + 0.05)
