"""From stored images to batches: a list of draws becomes one uint8 tensor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from project.data.augment import Augmenter, center_window
from project.data.batch import RawBatch
from project.data.pixels import PixelStore
from project.data.sampling import FILLER, Draw
from workbench.errors import UserError


class ImageDataset(Dataset[RawBatch]):
    """Images of one split; a list of draws becomes a whole batch at once.

    Args:
        store: decoded images.
        keys: int64, one number an image, that evaluation's chance follows from (see `picture_keys`).
        augmenter: random crop and changes for training; None in evaluation.
        crop: in evaluation, side of the middle part to keep; None keeps whole images.
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

    def __getitem__(self, draw: Draw | int) -> RawBatch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw | int]) -> RawBatch:
        """Makes a batch: torch's loader asks for whole lists where this method exists.

        Each image is written once, straight into the batch. A plain number (Lightning's `overfit_batches` brings its
        own sampler) is drawn the same way every time.

        Raises:
            UserError: the images of the batch differ in size.
        """
        images: Tensor | None = None
        targets: Tensor | None = None
        index, seeds = [], []
        filling = isinstance(draws[0], tuple) and draws[0][0] == FILLER
        found = [draw if isinstance(draw, tuple) else (draw, int(self.keys[draw])) for draw in draws]
        found = [(0, found[0][1])] if filling else found
        found.sort(key=lambda draw: self.store.has_target(draw[0]))  # stable: the order stays where all are alike
        alone = sum(not self.store.has_target(number) for number, _ in found)
        for position, (number, seed) in enumerate(found):
            image, target = self._draw(number, seed)
            images = _put(images, position, image, len(draws), self.augmenter is not None)
            if target is not None:
                targets = _put(targets, position - alone, target, len(draws) - alone, self.augmenter is not None)
            index.append(number)
            seeds.append(seed)
        assert images is not None
        return RawBatch(
            images, targets, torch.tensor(index), torch.tensor(seeds), torch.tensor([True]) if filling else None
        )

    def _draw(self, number: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        store = self.store
        if self.augmenter is not None:
            window = self.augmenter.begin(store.height(number), store.width(number), seed)
            return self.augmenter.change(*store.parts(number, window))
        if self.crop is None:
            return store.parts(number, None)
        return store.parts(number, center_window(store.height(number), store.width(number), self.crop))


def _put(batch: Tensor | None, position: int, image: np.ndarray, length: int, training: bool) -> Tensor:
    """Writes uint8 (H, W, C) into its place in the batch (B, C, H, W), made for the first one."""
    height, width, channels = image.shape
    if batch is None:
        batch = torch.empty((length, channels, height, width), dtype=torch.uint8)
    elif batch.shape[2:] != (height, width):
        raise size_error(tuple(batch.shape[2:]), (height, width), training)
    batch.numpy()[position] = image.transpose(2, 0, 1)
    return batch


class ResumableLoader(DataLoader):
    """A loader that goes on in the middle of an epoch.

    Where it stands is the trainer's own count, so there is no second one to disagree with it.

    Attributes:
        batches_done: called with this loader as each pass starts: how many of its batches an interrupted run has had.
            It must not hold the loader: workers of one that only the garbage collector frees take ten seconds to end.
    """

    batches_done: Callable[[ResumableLoader], int] | None = None

    def __iter__(self) -> Iterator[RawBatch]:
        # A generator: workers start with the first batch, not when Lightning makes the iterator, which on resuming it
        # does before it has told the sampler the epoch.
        if self.batches_done is not None:
            self.sampler.skip = self.batches_done(self) * self.batch_size
        try:
            yield from super().__iter__()
        except UserError as error:
            # torch makes a worker's error anew, with the worker's trace as its text, which ends with the words it had.
            raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from error

    def state_dict(self) -> dict[str, Any]:
        """Empty: tells Lightning that this loader can resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load: the place follows from the trainer's count."""


def whole_batch(batch: RawBatch) -> RawBatch:
    """The loader's collate function: `ImageDataset` has made the batch."""
    return batch


def start_worker(worker: int) -> None:
    """Gives a worker one thread: several that each use all cores are slower than as many plain ones.

    Signals that go to all processes of a run, as Ctrl-C does, are for the one that trains: it finishes its step first.
    """
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # The loader ends its workers this way too. With any other exit code torch would raise in the middle of a step.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def size_error(first: tuple[int, int], other: tuple[int, int], training: bool) -> UserError:
    """The error for a batch of unequal images, with the way out."""
    (height, width), (height2, width2) = first, other
    way_out = (
        "Cut equal squares out of them: --data.crop 64 (or smaller than the smallest image); or, where only quarter\n"
        "turns make the difference: --data.augment.quarter_turns false."
        if training
        else "Take them one by one, whole: --data.eval_batch_size 1; or cut out their middles: --data.eval_crop 64."
    )
    return UserError(
        f"A batch holds images of one size, and these are {width}x{height} and {width2}x{height2} pixels.\n{way_out}"
    )


def check_sizes(store: PixelStore, crop: int | None, turned: bool, training: bool) -> None:
    """Says before the first batch that images cannot share one."""
    first: tuple[int, int] | None = None
    for number in range(len(store)):
        size = store.height(number), store.width(number)
        if crop is not None:
            size = min(crop, size[0]), min(crop, size[1])
        first = first or size
        if size != first:
            raise size_error(first, size, training)
        if turned and size[0] != size[1]:
            raise size_error(size, size[::-1], training)
