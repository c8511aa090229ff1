"""What every pair maker does of itself."""

import pytest
import torch

from project.data import Batch
from project.data.pairs import GaussianNoise, Given, each_alone
from project.data.statistics import Statistics
from workbench.errors import UserError

INDEX = torch.arange(4)
SEED = torch.tensor([11, 12, 13, 2**62])


def test_given_pairs_are_given_on(pictures):
    image, target = pictures(1), pictures(2)
    pair = Given()(image, target, INDEX, SEED, True)
    assert pair.input is image and pair.target is target and pair.baseline is image and pair.seed is SEED
    with pytest.raises(UserError, match=r"--data\.target_root"):
        Given()(image, None, INDEX, SEED, True)


def test_a_pair_of_somebodys_own_needs_no_seed(pictures):
    assert Batch(pictures(), pictures(), pictures(), INDEX).seed is None


def test_what_a_pair_maker_does_unless_it_says_otherwise(pictures):
    maker = GaussianNoise()
    pair = maker(pictures(), None, INDEX, SEED, True)
    shown = maker.views(pair)
    assert list(shown) == ["input"] and shown["input"] is pair.baseline
    flat = Statistics(torch.tensor([0.5]), torch.tensor([0.0]), 10)
    assert maker.check(flat, flat) is None
    assert not maker.keeps_lightness


def test_each_alone_starts_from_the_pictures_number(pictures):
    image = pictures()
    found = [(picture, torch.rand(3, generator=generator)) for picture, generator in each_alone(image, SEED)]
    for position in range(4):
        assert torch.equal(found[position][0], image[position, None])
        expected = torch.rand(3, generator=torch.Generator().manual_seed(int(SEED[position])))
        assert torch.equal(found[position][1], expected)
