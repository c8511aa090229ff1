"""From stored images to batches, in an order that follows from (seed, epoch, position) alone, whatever the workers."""

from __future__ import annotations

import hashlib
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from project.data.augment import Augmenter
from project.data.batch import RawBatch
from project.data.images import center_window
from project.data.pixels import PixelStore
from workbench.errors import UserError, did_you_mean

Draw = tuple[int, int]  # the image's number in its split, and the seed that all of this draw's chance follows from
PADDING = -1  # instead of an image's number: the first image once more, in a batch that no metric counts


def image_keys(digests: Sequence[str], seed: int) -> np.ndarray:
    """int64 >= 0, one per image, from its bytes and the seed alone."""
    hashes = (hashlib.blake2b(f"{seed}:{digest}".encode(), digest_size=8).digest() for digest in digests)
    return np.array([int.from_bytes(value, "big") >> 1 for value in hashes], dtype=np.int64)


def draw_seeds(seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
    """int64 >= 0, unrelated from one seed, epoch and position in its order to the next.

    Source: SplitMix64's finalizer (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
    """
    start = int.from_bytes(hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8).digest(), "big")
    mixed = np.uint64(start) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


class _Sampler(DistributedSampler):
    """A DistributedSampler only so that Lightning does not replace it by one that pads; its constructor is not called,
    since it needs a process group, which starts later."""

    epoch = 0

    def _place(self) -> tuple[int, int]:
        """The number of processes, and this one's rank."""
        if torch.distributed.is_initialized():
            return torch.distributed.get_world_size(), torch.distributed.get_rank()
        return 1, 0


class TrainingSampler(_Sampler):
    """Yields each of `length` images `repeats` times an epoch, or by its weight with replacement, in an order that
    follows from (seed, epoch); as many on every process."""

    def __init__(self, length: int, seed: int, repeats: int = 1, weights: np.ndarray | None = None) -> None:
        self.length, self.seed, self.total, self.weights = length, seed, length * repeats, weights
        self.skip = 0  # draws of the next pass that an interrupted run has had

    def __len__(self) -> int:  # with those that are skipped, or Lightning ends a resumed epoch early
        return -(-self.total // self._place()[0])

    def __iter__(self) -> Iterator[Draw]:
        replicas, rank = self._place()
        generator = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            order = generator.permutation(self.total) % self.length
        else:
            order = generator.choice(self.length, self.total, p=self.weights / self.weights.sum())
        order = np.resize(order, len(self) * replicas)  # repeated from the start to divide evenly, with other seeds
        seeds = draw_seeds(self.seed, self.epoch, np.arange(len(order)))
        start, self.skip = self.skip, 0
        own = slice(rank + start * replicas, None, replicas)
        yield from zip(order[own].tolist(), seeds[own].tolist(), strict=True)


class EvaluationSampler(_Sampler):
    """Yields every image exactly once over all processes: process r of w has r, r + w, ...

    A process with a batch less than the first one ends with `PADDING`, alone in its batch: each must join every step.
    """

    def __init__(self, keys: np.ndarray, batch_size: int = 1) -> None:
        self.keys, self.batch_size = keys, batch_size

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Draw]:
        replicas, rank = self._place()
        first, own = (range(start, len(self.keys), replicas) for start in (0, rank))
        for number in own:
            yield number, int(self.keys[number])
        # Shares differ by one image at most: where that makes a batch of its own, all others here are full.
        if -(-len(own) // self.batch_size) < -(-len(first) // self.batch_size):
            yield PADDING, int(self.keys[0])


def image_weights(own_tags: Sequence[str], weights: dict[str, float]) -> np.ndarray:
    """float64, one weight per image: each tag is drawn by its own weight (1 if not given) whatever its size."""
    counts = Counter(own_tags)
    if unknown := sorted(weights.keys() - counts.keys()):
        tags = ", ".join(name or "'' (in no folder of their own)" for name in sorted(counts)[:20])
        hint = did_you_mean(unknown[0], counts)
        raise UserError(f"data.weights names {unknown[0]!r}, a tag of no training image.{hint}\nTags: {tags}")
    share = np.array([weights.get(tag, 1.0) / counts[tag] for tag in own_tags])
    if not (np.isfinite(share).all() and share.min() >= 0 and share.max() > 0):
        raise UserError(f"data.weights are {weights}: they must be numbers, 0 or more, and not all 0.")
    return share


class ImageDataset(Dataset[RawBatch]):
    """Images of one split, with their `image_keys`; a list of draws becomes a whole batch at once.

    The augmenter crops and changes for training; in evaluation there is none, and the middle `crop` pixels are kept.
    """

    def __init__(
        self, store: PixelStore, keys: np.ndarray, augmenter: Augmenter | None = None, crop: int | None = None
    ) -> None:
        self.store, self.keys, self.augmenter, self.crop = store, keys, augmenter, crop

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, draw: Draw | int) -> RawBatch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw | int]) -> RawBatch:
        """Make a batch: torch's loader asks for whole lists where this method exists.

        A plain number (Lightning's `overfit_batches` brings its own sampler) is drawn the same way every time.
        """
        pairs = [draw if isinstance(draw, tuple) else (draw, int(self.keys[draw])) for draw in draws]
        padding = pairs[0][0] == PADDING
        if padding:
            pairs = [(0, pairs[0][1])]
        pairs.sort(key=lambda pair: self.store.has_target(pair[0]))  # stable: the order stays where all are alike
        sides = [self._draw(number, seed) for number, seed in pairs]
        targets = [target for _, target in sides if target is not None]
        images = self._stack([image for image, _ in sides])
        index, seeds = (torch.tensor(column) for column in zip(*pairs, strict=True))
        is_padding = torch.tensor([True]) if padding else None
        return RawBatch(images, self._stack(targets) if targets else None, index, seeds, is_padding)

    def check_sizes(self) -> None:
        """Raise before the first batch if whole images, or their middles, cannot share one."""
        training = self.augmenter is not None
        most = self.crop or math.inf
        sizes = {(min(self.store.height(n), most), min(self.store.width(n), most)) for n in range(len(self))}
        if training and self.augmenter.augment.quarter_turns:
            sizes |= {size[::-1] for size in sizes}
        if len(sizes) > 1:
            found = " and ".join(f"{width}x{height}" for height, width in sorted(sizes)[:2])
            way_out = "--data.crop 64" if training else "--data.eval_crop 64, or --data.eval_batch_size 1"
            raise UserError(f"A batch holds images of one size, and these are {found} pixels. Set {way_out}.")

    def _draw(self, number: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        height, width = self.store.height(number), self.store.width(number)
        if self.augmenter is not None:
            return self.augmenter.draw(partial(self.store.read, number), height, width, seed)
        return self.store.read(number, None if self.crop is None else center_window(height, width, self.crop))

    def _stack(self, images: list[np.ndarray]) -> Tensor:
        """uint8 (H, W, C) each -> (B, C, H, W), with one copy an image."""
        height, width, channels = images[0].shape
        batch = torch.empty((len(images), channels, height, width), dtype=torch.uint8)
        np.stack([image.transpose(2, 0, 1) for image in images], out=batch.numpy())
        return batch


class ResumableLoader(DataLoader):
    """A loader of `ImageDataset` that resumes in the middle of an epoch."""

    # Called as each pass starts: how many of this loader's batches an interrupted run has had. It must not hold the
    # loader: workers of one that only the garbage collector frees take ten seconds to end.
    batches_done: Callable[[ResumableLoader], int] | None = None

    def __init__(self, dataset: ImageDataset, **options: Any) -> None:
        workers = options.get("num_workers", 0)
        own = {"persistent_workers": workers > 0, "collate_fn": _whole_batch, "worker_init_fn": _start_worker}
        super().__init__(dataset, **{**own, **options})  # Lightning makes one like it with all options

    def __iter__(self) -> Iterator[RawBatch]:
        # A generator: workers start with the first batch, not when Lightning makes the iterator, which on resuming it
        # does before it has set the sampler's epoch.
        if self.batches_done is not None:
            self.sampler.skip = self.batches_done(self) * self.batch_size
        try:
            yield from super().__iter__()
        except UserError as error:
            # torch makes a worker's error anew, with the worker's traceback as its text, which ends with the message.
            raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from error

    def state_dict(self) -> dict[str, Any]:
        """Empty: shows Lightning that this loader can resume. The position follows from the trainer's count."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def _whole_batch(batch: RawBatch) -> RawBatch:  # collating has been done
    return batch


def _start_worker(worker: int) -> None:
    """One thread a worker, and no reaction to signals that go to all processes, such as Ctrl-C: the trainer decides."""
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # The loader ends its workers this way too. With any other exit code torch would raise in the middle of a step.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
