"""Order, shares of processes and weights; the same batches whatever the number of workers; errors with a way out."""

import hashlib

import numpy as np
import pytest
import torch
from torch.utils.data.distributed import DistributedSampler

from project.data.loader import (
    PADDING,
    EvaluationSampler,
    ImageDataset,
    ResumableLoader,
    TrainingSampler,
    draw_seeds,
    image_keys,
    image_weights,
)
from workbench.errors import UserError


def at(sampler, replicas, rank):
    """As on one of several processes."""
    sampler._place = lambda: (replicas, rank)
    return sampler


def test_an_epoch_has_each_image_as_often_as_asked():
    draws = list(TrainingSampler(7, seed=1, repeats=3))
    assert len(draws) == len(TrainingSampler(7, seed=1, repeats=3)) == 21
    assert np.bincount([number for number, _ in draws]).tolist() == [3] * 7
    assert len({seed for _, seed in draws}) == 21
    assert all(0 <= seed < 2**63 for _, seed in draws)
    for sampler in (TrainingSampler(3, 1), EvaluationSampler(np.arange(3))):
        assert isinstance(sampler, DistributedSampler)  # or Lightning would replace it


def test_the_order_follows_from_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = TrainingSampler(50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 4) == order(1, 4)
    orders = [order(1, 0), order(1, 1), order(2, 0)]
    assert len({tuple(number for number, _ in each) for each in orders}) == 3
    assert len({seed for each in orders for _, seed in each}) == 150


@pytest.mark.parametrize(("length", "replicas"), [(20, 1), (10, 3), (2, 4), (12, 4)])
def test_training_shares_are_equal_cover_everything_and_resume_in_the_middle(length, replicas):
    samplers = [at(TrainingSampler(length, 1), replicas, rank) for rank in range(replicas)]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {-(-length // replicas)}
    draws = [draw for share in shares for draw in share]
    assert {number for number, _ in draws} == set(range(length))
    assert len({seed for _, seed in draws}) == len(draws)
    together = [draw for group in zip(*shares, strict=True) for draw in group]
    assert together[:length] == list(TrainingSampler(length, 1))  # the same epoch, divided
    for sampler, whole in zip(samplers, shares, strict=True):
        sampler.skip = 1
        assert len(sampler) == len(whole)  # the full length, or Lightning ends the epoch early
        assert list(sampler) == whole[1:]
        assert list(sampler) == whole  # once only


@pytest.mark.parametrize(
    ("length", "batch_size", "replicas"),
    [(9, 1, 2), (3, 1, 4), (8, 2, 4), (1, 4, 3), (9, 4, 2), (11, 2, 3)],
)
def test_evaluation_has_each_image_exactly_once_and_as_many_batches_everywhere(length, batch_size, replicas):
    keys = np.arange(100, 100 + length)
    samplers = [at(EvaluationSampler(keys, batch_size), replicas, rank) for rank in range(replicas)]
    shares = [list(sampler) for sampler in samplers]
    draws = sorted(draw for share in shares for draw in share if draw[0] != PADDING)
    assert draws == [(number, 100 + number) for number in range(length)]
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    batches = [[share[start : start + batch_size] for start in range(0, len(share), batch_size)] for share in shares]
    assert len({len(own) for own in batches}) == 1
    for own in batches:
        assert not any(number == PADDING for batch in own[:-1] for number, _ in batch)
        assert [number for number, _ in own[-1]] == [PADDING] or all(number != PADDING for number, _ in own[-1])


@pytest.mark.parametrize(
    ("tags", "weights", "message"),
    [
        (["cats", "dogs"], {"cat": 2}, r"'cat', a tag .* Did you mean cats\?\nTags: cats, dogs"),
        (["cats"], {"cats": float("nan")}, "nan.*must be numbers"),
        (["cats"], {"cats": 0}, "not all 0"),
    ],
)
def test_wrong_weights(tags, weights, message):
    with pytest.raises(UserError, match=message):
        image_weights(tags, weights)


def test_keys_follow_from_bytes_and_seed():
    keys = image_keys(["aa", "bb", "aa"], 1)
    assert keys[0] == keys[2] != keys[1]
    assert keys.min() >= 0 and keys.dtype == np.int64
    assert image_keys(["bb"], 1)[0] == keys[1] != image_keys(["bb"], 2)[0]


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


class Images:
    """Stands in for a PixelStore: random images, and targets that are their negatives."""

    def __init__(self, sizes, has_targets=False):
        generator = np.random.default_rng(0)
        self.arrays = [generator.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]
        self.has_target = lambda number: has_targets
        self.height = lambda number: sizes[number][0]
        self.width = lambda number: sizes[number][1]

    def __len__(self):
        return len(self.arrays)

    def read(self, number, window=None):
        image = self.arrays[number][... if window is None else window]
        return image, 255 - image if self.has_target(number) else None


KEYS = np.arange(1000, 1010)


def test_a_batch_holds_each_draws_image_and_target():
    dataset = ImageDataset(Images([(20, 30)] * 10, has_targets=True), KEYS)
    assert dataset[3].image.shape == (1, 3, 20, 30)
    raw = dataset.__getitems__([(7, 5), (2, 6)])
    assert raw.image.shape == raw.target.shape == (2, 3, 20, 30)
    assert raw.image.dtype == torch.uint8 and raw.image.is_contiguous()
    assert raw.index.tolist() == [7, 2] and raw.seed.tolist() == [5, 6]
    for position, number in enumerate((7, 2)):
        assert np.array_equal(raw.image[position].numpy(), dataset.store.arrays[number].transpose(2, 0, 1))
    assert torch.equal(raw.target, 255 - raw.image)


def test_evaluation_takes_whole_images_or_their_middles():
    store = Images([(20, 30)] * 3)
    batch = ImageDataset(store, KEYS, crop=8).__getitems__([0, 1])
    assert batch.target is None
    assert np.array_equal(batch.image[1].numpy(), store.arrays[1][6:14, 11:19].transpose(2, 0, 1))
    assert batch.seed.tolist() == [1000, 1001]
    small = ImageDataset(Images([(11, 6)]), KEYS, crop=8)  # no more than there is
    assert np.array_equal(small[0].image[0].numpy(), small.store.arrays[0][1:9].transpose(2, 0, 1))
    sampler = EvaluationSampler(KEYS[:3])
    loader = ResumableLoader(ImageDataset(store, KEYS[:3]), batch_size=2, sampler=sampler)
    assert [batch.index.tolist() for batch in loader] == [[0, 1], [2]]


class Gone(Images):
    def read(self, number, window=None):
        raise UserError("a.png has changed since it was checked. Run again.") from OSError("no such file")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_that_a_worker_finds_comes_without_its_traceback(workers):
    dataset = ImageDataset(Gone([(20, 30)] * 10), KEYS)
    loader = ResumableLoader(dataset, sampler=EvaluationSampler(KEYS), num_workers=workers)
    with pytest.raises(UserError) as error:
        next(iter(loader))
    assert str(error.value) == "a.png has changed since it was checked. Run again."
