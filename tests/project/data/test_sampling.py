"""Sampling: order, shares of processes, weights."""

import hashlib

import numpy as np
import pytest
from torch.utils.data.distributed import DistributedSampler

from project.data.sampling import FILLER, EvaluationSampler, TrainingSampler, draw_seeds, picture_keys, picture_weights
from workbench.errors import UserError


def test_an_epoch_has_each_picture_as_often_as_asked():
    draws = list(TrainingSampler(7, seed=1, repeats=3))
    assert len(draws) == len(TrainingSampler(7, seed=1, repeats=3)) == 21
    assert np.bincount([number for number, _ in draws]).tolist() == [3] * 7
    assert len({seed for _, seed in draws}) == 21
    assert all(0 <= seed < 2**63 for _, seed in draws)


def test_the_order_follows_from_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = TrainingSampler(50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 4) == order(1, 4)
    orders = [order(1, 0), order(1, 1), order(2, 0)]
    assert len({tuple(number for number, _ in each) for each in orders}) == 3
    assert len({seed for each in orders for _, seed in each}) == 150


def test_going_on_in_the_middle_leaves_the_rest_as_it_was():
    sampler = TrainingSampler(20, seed=1)
    whole = list(sampler)
    sampler.skip = 8
    assert len(sampler) == 20  # the full length, or Lightning ends the epoch early
    assert list(sampler) == whole[8:]
    assert list(sampler) == whole  # once only


@pytest.mark.parametrize(("length", "replicas"), [(10, 3), (2, 4), (12, 4)])
def test_training_shares_are_equal_and_cover_everything(length, replicas):
    shares = [list(TrainingSampler(length, 1, num_replicas=replicas, rank=rank)) for rank in range(replicas)]
    assert {len(share) for share in shares} == {-(-length // replicas)}
    draws = [draw for share in shares for draw in share]
    assert {number for number, _ in draws} == set(range(length))
    assert len({seed for _, seed in draws}) == len(draws)
    together = [draw for group in zip(*shares, strict=True) for draw in group]
    assert together[:length] == list(TrainingSampler(length, 1))  # the same epoch, dealt out


def test_a_share_goes_on_in_the_middle_too():
    sampler = TrainingSampler(20, seed=1, num_replicas=3, rank=1)
    whole = list(sampler)
    sampler.skip = 4
    assert list(sampler) == whole[4:]


@pytest.mark.parametrize(
    ("length", "batch_size", "replicas"),
    [(9, 1, 2), (3, 1, 4), (8, 2, 4), (1, 1, 2), (1, 4, 3), (9, 4, 2), (8, 4, 2), (11, 2, 3)],
)
def test_evaluation_has_each_picture_exactly_once_and_as_many_batches_everywhere(length, batch_size, replicas):
    keys = np.arange(100, 100 + length)
    samplers = [EvaluationSampler(keys, replicas, rank, batch_size) for rank in range(replicas)]
    shares = [list(sampler) for sampler in samplers]
    draws = sorted(draw for share in shares for draw in share if draw[0] != FILLER)
    assert draws == [(number, 100 + number) for number in range(length)]
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    batches = [[share[start : start + batch_size] for start in range(0, len(share), batch_size)] for share in shares]
    assert len({len(own) for own in batches}) == 1
    for own in batches:
        assert not any(number == FILLER for batch in own[:-1] for number, _ in batch)
        assert [number for number, _ in own[-1]] == [FILLER] or all(number != FILLER for number, _ in own[-1])


def test_lightning_takes_them_for_distributed_samplers():
    assert isinstance(TrainingSampler(3, 1), DistributedSampler)
    assert isinstance(EvaluationSampler(np.arange(3)), DistributedSampler)


def test_weights_are_each_tags_share_whatever_its_size():
    tags = ["a"] * 90 + ["b"] * 10
    for weights, share in (({}, 0.5), ({"a": 3.0}, 0.75), ({"b": 0.0}, 1.0)):
        sampler = TrainingSampler(100, 1, repeats=100, weights=picture_weights(tags, weights))
        numbers = np.array([number for number, _ in sampler])
        assert (numbers < 90).mean() == pytest.approx(share, abs=0.02)
        assert len(set(numbers[numbers < 90])) == 90


def test_wrong_weights():
    with pytest.raises(UserError, match=r"'cat', a tag .*; did you mean 'cats'\?\nTags: cats, dogs"):
        picture_weights(["cats", "dogs"], {"cat": 2})
    with pytest.raises(UserError, match=r"Tags: '' \(in no folder of their own\), dogs"):
        picture_weights(["", "dogs"], {"cat": 2})
    with pytest.raises(UserError, match="0 or more"):
        picture_weights(["cats"], {"cats": -1})
    with pytest.raises(UserError, match="weight of nan"):
        picture_weights(["cats"], {"cats": float("nan")})
    with pytest.raises(UserError, match="nothing would be drawn"):
        picture_weights(["cats"], {"cats": 0})


def test_keys_follow_from_bytes_and_seed():
    keys = picture_keys(["aa", "bb", "aa"], 1)
    assert keys[0] == keys[2] != keys[1]
    assert keys.min() >= 0 and keys.dtype == np.int64
    assert picture_keys(["bb"], 1)[0] == keys[1] != picture_keys(["bb"], 2)[0]


def test_draw_seeds_are_splitmix64():
    """Against the generator's published loop, in Python's unbounded integers."""
    start = int.from_bytes(hashlib.blake2b(b"5:2", digest_size=8).digest(), "big")
    expected = []
    for _ in range(5):
        start = (start + 0x9E3779B97F4A7C15) % 2**64
        value = (start ^ (start >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        expected.append((value ^ (value >> 31)) >> 1)
    assert draw_seeds(5, 2, np.arange(5)).tolist() == expected
