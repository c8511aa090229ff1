"""How many hints, where from and how exact."""

import pytest
import torch

from project.data.pairs.laws import Law
from workbench.errors import UserError

DEFAULTS = {
    "none": 0.0,
    "all": 0.0,
    "count_p": 0.125,
    "most": 100,
    "patch": 1,
    "position": "uniform",
    "noise": 0.0,
    "levels": 0,
    "drop": (0.0, 0.0),
    "eval_count": 10,
    "eval_patch": 6,
}


def law(**options):
    return Law(**{**DEFAULTS, **options})


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def counts(maker, batch=4000):
    patches, _, everything = maker.training(torch.zeros(batch, 3, 4, 5))
    return patches.there.sum(dim=1), everything


def test_counts_are_geometric():
    found, _ = counts(law(most=200))
    assert found.min() == 1
    assert found.double().mean().item() == pytest.approx(8, rel=0.05)
    for number in (1, 2, 5):
        share = (found == number).double().mean().item()
        assert share == pytest.approx(0.125 * 0.875 ** (number - 1), abs=0.02)
    assert (found > 16).double().mean().item() == pytest.approx(0.875**16, abs=0.02)


def test_certain_and_capped_counts():
    assert counts(law(count_p=1.0), 100)[0].unique().tolist() == [1]
    found, _ = counts(law(most=3))
    assert found.max() == 3
    assert (found == 3).double().mean().item() == pytest.approx(0.875**2, abs=0.03)


def test_shares_of_pictures():
    found, everything = counts(law(none=0.3, all=0.1))
    assert (found == 0).double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert everything.double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (found[everything] == 100).all()
    assert counts(law(none=1.0))[0].max() == 0
    assert counts(law(all=1.0))[1].all()


def test_some_pictures_lose_most_of_their_hints():
    found, _ = counts(law(count_p=1e-6, drop=(0.25, 0.8)))  # without it all had 100
    whole = found == 100
    assert whole.double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert found[~whole].double().mean().item() == pytest.approx(20, abs=0.5)
    found, everything = counts(law(all=0.5, drop=(1.0, 1.0)))
    assert (found[everything] == 100).all() and (found[~everything] == 0).all()


def test_noise_on_colors():
    _, colors, _ = law(noise=0.05, count_p=1e-6).training(torch.full((200, 3, 4, 5), 0.5))
    assert colors.std().item() == pytest.approx(0.05, rel=0.02)
    assert colors.mean().item() == pytest.approx(0.5, abs=0.002)
    assert torch.corrcoef(colors.flatten(0, 1).T).fill_diagonal_(0).abs().max() < 0.03
    _, colors, _ = law(noise=1.0, count_p=1e-6).training(torch.full((20, 3, 4, 5), 0.5))
    assert colors.min() == 0 and colors.max() == 1


def test_few_levels(pictures):
    _, exact, _ = law().training(pictures())
    torch.manual_seed(0)
    _, colors, _ = law(levels=5).training(pictures())
    assert colors.unique().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (colors - exact).abs().max() <= 0.125 + 1e-6


def test_sides_are_drawn_for_each_square():
    patches, _, _ = law(patch=(2, 4)).training(torch.zeros(50, 3, 10, 12))
    shares = torch.bincount(patches.side.flatten()) / patches.side.numel()
    assert torch.allclose(shares, torch.tensor([0, 0, 1 / 3, 1 / 3, 1 / 3]), atol=0.03)
    assert (patches.side.amax(1) > patches.side.amin(1)).all()


def test_training_follows_from_the_devices_generator(pictures):
    maker = law(patch=(1, 9), noise=0.1, drop=(0.5, 0.5))

    def draw():
        patches, colors, _ = maker.training(pictures())
        return [*patches[:4], colors]

    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert all(map(torch.equal, draw(), first))
    assert not torch.equal(first[0], second[0])


def test_evaluations_hints_are_the_first_of_more(pictures):
    image, seed = pictures(), torch.tensor([3, 2**62, 5, 2**63 - 1])
    whole, colors = law().evaluation(image, seed, 300)
    assert whole.there.all() and (whole.side == 6).all()
    for count in (0, 1, 10, 128, 129):
        some, few = law().evaluation(image, seed, count)
        assert some.top.shape == (4, count)
        assert torch.equal(some.top, whole.top[:, :count]) and torch.equal(some.left, whole.left[:, :count])
        assert torch.equal(few, colors[:, :count])
    places = whole.top * 100 + whole.left
    assert all(places[0].ne(places[other]).any() for other in range(1, 4))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"none": 1.2}, "none is 1.2: it must be between 0 and 1"),
        ({"all": -0.1}, "all is -0.1: it must be between 0 and 1"),
        ({"none": 0.7, "all": 0.4}, "none and data.pairs.hints.all are 0.7 and 0.4"),
        ({"count_p": 0}, "count_p is 0: it must be above 0"),
        ({"count_p": 1.5}, "count_p is 1.5"),
        ({"most": 0}, "most is 0: it must be at least 1"),
        ({"patch": 0}, "patch is 0: it must be a side in pixels"),
        ({"patch": (9, 1)}, "patch is (9, 1)"),
        ({"patch": (1, 2, 3)}, "patch is (1, 2, 3)"),
        ({"position": "middle"}, "position is middle: it must be one of uniform, gaussian"),
        ({"noise": 5}, "noise is 5: it must be between 0 and 1"),
        ({"levels": 1}, "levels is 1: it must be 0 (off) or at least 2"),
        ({"levels": -3}, "levels is -3"),
        ({"drop": (0.5, 1.5)}, "drop is (0.5, 1.5): it must be two shares between 0 and 1"),
        ({"drop": (0.5,)}, "drop is (0.5,)"),
        ({"eval_count": -1}, "eval_count is -1: it must be 0 or more"),
        ({"eval_patch": 0}, "eval_patch is 0: it must be from 1 to 128 pixels"),
        ({"eval_patch": 129}, "eval_patch is 129"),
        ({"patch": (9, 500)}, "patch is (9, 500)"),
    ],
)
def test_impossible_arguments(options, said):
    with pytest.raises(UserError) as caught:
        law(**options)
    assert str(caught.value).startswith("data.pairs.hints.") and said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_impossible_arguments_at_once():
    with pytest.raises(UserError) as caught:
        law(none=2, levels=1, most=0)
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [
        "data.pairs.hints.none",
        "data.pairs.hints.most",
        "data.pairs.hints.levels",
    ]
