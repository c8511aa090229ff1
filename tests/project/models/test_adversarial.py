import math

import pytest
import torch

from project.models import Hinge, LeastSquares, Standard, WassersteinGP
from workbench.errors import UserError

REAL = torch.tensor([2.0, -0.5, 0.25, 1.5]).view(2, 1, 1, 2)
FAKE = torch.tensor([-1.0, 0.75, 3.0, -2.5]).view(2, 1, 1, 2)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("loss", "real", "fake", "generator"),
    [
        (Standard(), lambda r: -math.log(sigmoid(r)), lambda f: -math.log(1 - sigmoid(f)),
         lambda f: -math.log(sigmoid(f))),
        (Standard(0.8), lambda r: -0.8 * math.log(sigmoid(r)) - 0.2 * math.log(1 - sigmoid(r)),
         lambda f: -math.log(1 - sigmoid(f)), lambda f: -math.log(sigmoid(f))),
        (LeastSquares(), lambda r: (r - 1) ** 2 / 2, lambda f: f**2 / 2, lambda f: (f - 1) ** 2 / 2),
        (LeastSquares(0.9), lambda r: (r - 0.9) ** 2 / 2, lambda f: f**2 / 2, lambda f: (f - 1) ** 2 / 2),
        (Hinge(), lambda r: max(0, 1 - r), lambda f: max(0, 1 + f), lambda f: -f),
        (WassersteinGP(), lambda r: -r, lambda f: f, lambda f: -f),
    ],
)  # fmt: skip
def test_losses_are_those_of_the_papers(loss, real, fake, generator):
    reals, fakes = REAL.flatten().tolist(), FAKE.flatten().tolist()
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(mean(map(real, reals)) + mean(map(fake, fakes)))
    assert loss.generator(FAKE).item() == pytest.approx(mean(map(generator, fakes)))


@pytest.mark.parametrize("loss", [Standard(), Standard(0.9), LeastSquares(), Hinge(), WassersteinGP()])
def test_each_pulls_its_way(loss):
    real, fake = torch.zeros(3, 1, 2, 2, requires_grad=True), torch.zeros(3, 1, 2, 2, requires_grad=True)
    loss.discriminator(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad >= 0).all()
    fake.grad = None
    loss.generator(fake).backward()
    assert (fake.grad < 0).all()


def test_the_penalty_of_a_linear_critic_is_known():
    weight = torch.rand(1, 2, 5, 7)

    def judge(x):
        return torch.stack([(x * weight).sum(dim=(1, 2, 3)) * 3, (x * weight).sum(dim=(1, 2, 3))], dim=1).view(
            -1, 1, 1, 2
        )

    expected = (2 * weight.norm().item() - 1) ** 2  # the mean of the two logits grows by twice the weight
    penalty = WassersteinGP().penalty(judge, torch.rand(3, 2, 5, 7), torch.rand(3, 2, 5, 7))
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    assert WassersteinGP(7).penalty_weight == 7
    assert Hinge().penalty(judge, weight, weight) is None


def test_the_penalty_is_taken_between_the_two_each_picture_at_a_place_of_its_own():
    seen = []

    def judge(x):
        seen.append(x.detach())
        return x.square().sum(dim=(1, 2, 3)).view(-1, 1, 1, 1)

    WassersteinGP().penalty(judge, torch.ones(500, 1, 2, 3), torch.zeros(500, 1, 2, 3))
    places = seen[0].flatten(1)
    assert torch.equal(places, places[:, :1].expand(-1, 6))
    assert 0 <= places.min() < 0.05 and 0.95 < places.max() <= 1 and 0.4 < places.mean() < 0.6


def test_the_penalty_is_float32_and_teaches_the_critic_also_under_autocast():
    torch.manual_seed(0)
    critic = torch.nn.Conv2d(2, 1, 3)
    types = []

    def judge(x):
        types.append((x.dtype, critic(x).dtype))
        return critic(x)

    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)
        penalty = WassersteinGP().penalty(judge, torch.rand(3, 2, 5, 7), torch.rand(3, 2, 5, 7))
    assert types == [(torch.float32, torch.float32)] and penalty.dtype == torch.float32
    torch.manual_seed(1)
    torch.testing.assert_close(
        WassersteinGP().penalty(critic, torch.rand(3, 2, 5, 7), torch.rand(3, 2, 5, 7)), penalty, rtol=1e-6, atol=0
    )
    penalty.backward()
    assert critic.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("make", [lambda: Standard(0), lambda: LeastSquares(1.1), lambda: WassersteinGP(-1)])
def test_impossible_numbers_are_told(make):
    with pytest.raises(UserError):
        make()
