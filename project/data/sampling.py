"""Which image when: the order of an epoch, and the numbers that each draw's chance follows from.

Everything follows from (seed, epoch, position in the epoch), so that it repeats bit by bit with any number of workers,
and training can go on in the middle of an epoch.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

import numpy as np
import torch
from torch.utils.data.distributed import DistributedSampler

from workbench.errors import UserError

Draw = tuple[int, int]  # the image's number in its split, and the number that all of this draw's chance follows from
FILLER = -1
"""Instead of an image's number: the first image once more, in a batch that nobody counts."""


def picture_keys(digests: Sequence[str], seed: int) -> np.ndarray:
    """One number an image, from its bytes and the seed alone: wherever the folder lies and however it grows.

    Returns:
        int64, not negative.
    """
    hashes = (hashlib.blake2b(f"{seed}:{digest}".encode(), digest_size=8).digest() for digest in digests)
    return np.array([int.from_bytes(value, "big") >> 1 for value in hashes], dtype=np.int64)


def draw_seeds(seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
    """A number for each place in an epoch's order, unrelated to every other place's, epoch's and seed's.

    Source: SplitMix64's finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").

    Returns:
        int64, not negative.
    """
    start = int.from_bytes(hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8).digest(), "big")
    mixed = np.uint64(start) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


class _Sampler(DistributedSampler):
    """Being a DistributedSampler keeps Lightning from putting one of its own, which pads evaluation, in its place.

    Its base's constructor is left out: it wants a process group already when it is made.
    """

    def __init__(self, num_replicas: int | None, rank: int | None) -> None:
        self.epoch = 0
        self._given = (num_replicas, rank)

    def _place(self) -> tuple[int, int]:
        """How many processes there are, and which one this is; asked when needed, since they start late."""
        group = torch.distributed.is_available() and torch.distributed.is_initialized()
        replicas, rank = self._given
        if replicas is None:
            replicas = torch.distributed.get_world_size() if group else 1
        if rank is None:
            rank = torch.distributed.get_rank() if group else 0
        return replicas, rank


class TrainingSampler(_Sampler):
    """Yields draws in an order that follows from (seed, epoch); as many on every process.

    Args:
        length: number of images.
        seed: with the epoch, what everything random follows from.
        repeats: draws of each image in an epoch.
        weights: one an image: draws are made with replacement, in proportion; None: each image `repeats` times.
        num_replicas: number of processes; None asks torch's process group.
        rank: this process's number; None asks torch's process group.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        repeats: int = 1,
        weights: np.ndarray | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(num_replicas, rank)
        self.length = length
        self.seed = seed
        self.repeats = repeats
        self.weights = weights
        self.skip = 0  # draws of the next pass to leave out, because an interrupted run has had them

    def __len__(self) -> int:
        return -(-self.length * self.repeats // self._place()[0])

    def __iter__(self) -> Iterator[Draw]:
        replicas, rank = self._place()
        generator = np.random.default_rng((self.seed, self.epoch))
        total = self.length * self.repeats
        if self.weights is None:
            order = generator.permutation(total) % self.length
        else:
            order = generator.choice(self.length, total, p=self.weights / self.weights.sum())
        # A rest that does not divide by the processes is filled from the start, with changes of its own.
        order = np.resize(order, len(self) * replicas)
        seeds = draw_seeds(self.seed, self.epoch, np.arange(len(order)))
        start, self.skip = self.skip, 0
        mine = slice(rank + start * replicas, None, replicas)
        yield from zip(order[mine].tolist(), seeds[mine].tolist(), strict=True)


class EvaluationSampler(_Sampler):
    """Yields every image exactly once over all processes: process r of w has r, r + w, ...

    A process that would have a batch less than the first one ends with a `FILLER`, alone in its batch: an epoch's end,
    and networks that are shared out, need each process in every step.

    Args:
        keys: one number an image, see `picture_keys`.
        num_replicas: number of processes; None asks torch's process group.
        rank: this process's number; None asks torch's process group.
        batch_size: images in a batch.
    """

    def __init__(
        self, keys: np.ndarray, num_replicas: int | None = None, rank: int | None = None, batch_size: int = 1
    ) -> None:
        super().__init__(num_replicas, rank)
        self.keys = keys
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self._share()) + self._lacks_a_batch()

    def __iter__(self) -> Iterator[Draw]:
        for number in self._share():
            yield number, int(self.keys[number])
        if self._lacks_a_batch():
            yield FILLER, int(self.keys[0])

    def _share(self, rank: int | None = None) -> range:
        replicas, own = self._place()
        return range(own if rank is None else rank, len(self.keys), replicas)

    def _lacks_a_batch(self) -> bool:
        # Shares differ by one image at most: where that makes a batch of its own, all others here are full.
        return -(-len(self._share()) // self.batch_size) < -(-len(self._share(0)) // self.batch_size)


def picture_weights(tags: Sequence[str], weights: dict[str, float]) -> np.ndarray:
    """One weight an image, so that each tag is drawn by its own weight whatever its number of images.

    Args:
        tags: each image's tag.
        weights: some tags' weights; the others weigh 1.

    Returns:
        float64, (number of images,).

    Raises:
        UserError: an unknown tag, a negative weight, or nothing but zeros.
    """
    numbers = Counter(tags)
    known = sorted(numbers)
    for tag, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise UserError(f"data.weights gives {tag!r} a weight of {weight}: it must be a number, 0 or more.")
        if tag not in known:
            close = get_close_matches(tag, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            listed = ", ".join(name or "'' (in no folder of their own)" for name in known[:20])
            raise UserError(f"data.weights names {tag!r}, a tag of no training image{hint}\nTags: {listed}")
    share = {tag: weights.get(tag, 1.0) / numbers[tag] for tag in known}
    if not any(share.values()):
        raise UserError("data.weights gives every tag a weight of 0: nothing would be drawn.")
    return np.array([share[tag] for tag in tags])
