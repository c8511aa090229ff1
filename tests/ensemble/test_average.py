"""Averages against plain NumPy, and the eight positions against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from project.ensemble.average import CLOSE, Ensemble, by_agreement, disagreement, score_weights, turn, turn_back
from project.errors import UserError


class Adds(nn.Module):
    """A member that adds a number, and a slope from left to right."""

    def __init__(self, number: float, slope: float = 0.0) -> None:
        super().__init__()
        self.number, self.slope = number, slope

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number + self.slope * torch.linspace(0, 1, x.shape[-1])


def picture() -> Tensor:
    return torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) / 2 + 0.2


def test_the_mean():
    x = picture()
    torch.testing.assert_close(Ensemble([Adds(0.0), Adds(0.03), Adds(0.06)])(x), x + 0.03)


def test_better_members_count_by_their_errors():
    # 10 dB less: ten times the squared error, a tenth of the weight.
    torch.testing.assert_close(score_weights([30.0, 20.0]), torch.tensor([10 / 11, 1 / 11]))
    x = picture()
    torch.testing.assert_close(Ensemble([Adds(0.0), Adds(0.11)], "score", [30.0, 20.0])(x), x + 0.01)


def test_an_outlier_hardly_counts_by_agreement():
    x = picture()
    members = [Adds(0.0), Adds(0.002), Adds(0.25)]
    torch.testing.assert_close(Ensemble(members, "agreement")(x), x + 0.001, atol=1e-3, rtol=0)
    answers = np.stack([x.numpy(), x.numpy() + 0.002, x.numpy() + 0.25])
    apart = ((answers - np.median(answers, axis=0)) ** 2).mean(axis=2, keepdims=True)
    weights = 1 / (apart + CLOSE**2)
    expected = (weights * answers).sum(0) / weights.sum(0)
    torch.testing.assert_close(by_agreement(torch.tensor(answers)), torch.tensor(expected))


def test_disagreement_is_the_spread_of_the_answers():
    answers = torch.rand(4, 2, 3, 5, 7, dtype=torch.float64)
    expected = np.sqrt((answers.numpy().std(axis=0) ** 2).mean(axis=1, keepdims=True))
    torch.testing.assert_close(disagreement(answers), torch.tensor(expected))


def test_the_eight_positions_are_all_different_and_come_back():
    x = picture()
    seen = [turn(x, position) for position in range(8)]
    assert [one.shape[-2:] == (7, 5) for one in seen] == [False, True] * 4
    square = x[..., :5]
    views = [turn(square, position) for position in range(8)]
    assert all(not torch.equal(a, b) for n, a in enumerate(views) for b in views[:n])
    for position in range(8):
        assert torch.equal(turn_back(turn(x, position), position), x)


def test_what_a_member_does_to_one_side_is_averaged_out_by_turns():
    x = picture()
    sloped = Adds(0.0, slope=0.1)
    ensemble = Ensemble([sloped], turns=True)
    assert ensemble.answers(x).shape == (8, 2, 3, 5, 7)
    torch.testing.assert_close(ensemble(x), x + 0.05, atol=1e-6, rtol=0)
    assert not torch.allclose(sloped(x), x + 0.05)


def test_turned_members_keep_their_weights():
    x = picture()
    members = [Adds(0.0), Adds(0.11)]
    torch.testing.assert_close(Ensemble(members, "score", [30.0, 20.0], turns=True)(x), x + 0.01)


def test_an_unknown_way():
    with pytest.raises(UserError, match="plain, score, agreement"):
        Ensemble([Adds(0.0)], "median")
