"""From stored pictures to batches: which picture when, and how draws become one tensor.

Everything here follows from (seed, epoch, position in the epoch), so that it repeats bit by bit with any number of
workers, and training can go on in the middle of an epoch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from project.data.augment import Augmenter, centre_crop
from project.data.batch import Raw
from project.data.pixels import PixelStore
from project.errors import UserError

Draw = tuple[int, int]  # the picture's number in its split, and the number that all of this draw's chance follows from


class PictureDataset(Dataset[Raw]):
    """Pictures of one split; a list of draws becomes a whole batch at once.

    Args:
        store: decoded pictures.
        keys: int64, one number a picture, that evaluation's chance follows from (see `picture_keys`).
        augmenter: random crop and changes for training; None in evaluation.
        crop: in evaluation, side of the middle part to keep; None keeps whole pictures.
    """

    def __init__(
        self, store: PixelStore, keys: np.ndarray, augmenter: Augmenter | None = None, crop: int | None = None
    ) -> None:
        self.store = store
        self.keys = keys
        self.augmenter = augmenter
        self.crop = crop

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, draw: Draw | int) -> Raw:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw | int]) -> Raw:
        """Makes a batch: torch's loader asks for whole lists where this method exists.

        Each picture is written once, straight into the batch. A plain number (Lightning's `overfit_batches` brings its
        own sampler) is drawn the same way every time.

        Raises:
            UserError: the pictures of the batch differ in size.
        """
        images: Tensor | None = None
        targets: Tensor | None = None
        index, seeds = [], []
        for position, draw in enumerate(draws):
            number, seed = draw if isinstance(draw, tuple) else (draw, int(self.keys[draw]))
            image, target = self._draw(number, seed)
            images = _put(images, position, image, len(draws), self.augmenter is not None)
            if target is not None:
                targets = _put(targets, position, target, len(draws), self.augmenter is not None)
            index.append(number)
            seeds.append(seed)
        assert images is not None
        return Raw(images, targets, torch.tensor(index), torch.tensor(seeds))

    def _draw(self, number: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        image = self.store[number]
        target = self.store.target(number) if self.store.has_targets else None
        if self.augmenter is not None:
            return self.augmenter(image, target, seed)
        if self.crop is None:
            return image, target
        return centre_crop(image, self.crop), None if target is None else centre_crop(target, self.crop)


def _put(batch: Tensor | None, position: int, image: np.ndarray, length: int, training: bool) -> Tensor:
    """Writes uint8 (H, W, C) into its place in the batch (B, C, H, W), made for the first one."""
    height, width, channels = image.shape
    if batch is None:
        batch = torch.empty((length, channels, height, width), dtype=torch.uint8)
    elif batch.shape[2:] != (height, width):
        raise size_error(tuple(batch.shape[2:]), (height, width), training)
    batch.numpy()[position] = image.transpose(2, 0, 1)
    return batch


def size_error(first: tuple[int, int], other: tuple[int, int], training: bool) -> UserError:
    """The error for a batch of unequal pictures, with the way out."""
    (height, width), (height2, width2) = first, other
    way_out = (
        "Cut equal squares out of them: --data.crop 64 (or smaller than the smallest picture); or, where only quarter\n"
        "turns make the difference: --data.augment.quarter_turns false."
        if training
        else "Take them one by one, whole: --data.eval_batch_size 1; or cut out their middles: --data.eval_crop 64."
    )
    return UserError(
        f"A batch holds pictures of one size, and these are {width}x{height} and {width2}x{height2} pixels.\n{way_out}"
    )


def picture_keys(digests: Sequence[str], seed: int) -> np.ndarray:
    """One number a picture, from its bytes and the seed alone: wherever the folder lies and however it grows.

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
        length: number of pictures.
        seed: with the epoch, what everything random follows from.
        repeats: draws of each picture in an epoch.
        weights: one a picture: draws are made with replacement, in proportion; None: each picture `repeats` times.
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
    """Yields every picture exactly once over all processes: process r of w has r, r + w, ..., and none is repeated.

    Args:
        keys: one number a picture, see `picture_keys`.
        num_replicas: number of processes; None asks torch's process group.
        rank: this process's number; None asks torch's process group.
    """

    def __init__(self, keys: np.ndarray, num_replicas: int | None = None, rank: int | None = None) -> None:
        super().__init__(num_replicas, rank)
        self.keys = keys

    def __len__(self) -> int:
        replicas, rank = self._place()
        return len(range(rank, len(self.keys), replicas))

    def __iter__(self) -> Iterator[Draw]:
        replicas, rank = self._place()
        for number in range(rank, len(self.keys), replicas):
            yield number, int(self.keys[number])


class ResumableLoader(DataLoader):
    """A loader that goes on in the middle of an epoch.

    Where it stands is the trainer's own count, so there is no second one to disagree with it.

    Attributes:
        batches_done: called as each pass starts: how many of its batches an interrupted run has had.
    """

    batches_done: Callable[[], int] | None = None

    def __iter__(self) -> Iterator[Raw]:
        # A generator: workers start with the first batch, not when Lightning makes the iterator, which on resuming it
        # does before it has told the sampler the epoch.
        if self.batches_done is not None:
            self.sampler.skip = self.batches_done() * self.batch_size
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Empty: tells Lightning that this loader can resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load: the place follows from the trainer's count."""


def whole_batch(batch: Raw) -> Raw:
    """The loader's collate function: `PictureDataset` has made the batch."""
    return batch


def start_worker(worker: int) -> None:
    """Gives a worker one thread: several that each use all cores are slower than as many plain ones."""
    torch.set_num_threads(1)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
