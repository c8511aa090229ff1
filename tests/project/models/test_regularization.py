import pytest
from project.models.regularization import l1_penalty, l2_penalty, penalised_weights
from torch import nn


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.PReLU(3), nn.Conv2d(3, 1, 1))


def test_kernels_alone_are_penalised_and_frozen_ones_are_not():
    net = network()
    assert [tuple(w.shape) for w in penalised_weights(net)] == [(3, 2, 3, 3), (1, 3, 1, 1)]
    net[0].requires_grad_(False)
    assert [tuple(w.shape) for w in penalised_weights(net)] == [(1, 3, 1, 1)]


def test_penalties_equal_numpy_and_their_gradients_are_sign_and_weight():
    net = network()
    weights = penalised_weights(net)
    arrays = [w.detach().numpy() for w in weights]
    assert l1_penalty(weights).item() == pytest.approx(sum(abs(a).sum() for a in arrays), rel=1e-5)
    assert l2_penalty(weights).item() == pytest.approx(sum((a**2).sum() for a in arrays) / 2, rel=1e-5)
    l2_penalty(weights).backward()
    assert weights[0].grad.equal(weights[0])
