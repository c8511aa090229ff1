"""Loading: the same batches whatever the number of workers, and errors with a way out."""

import numpy as np
import pytest
import torch

from project.data.augment import Augment, Augmenter
from project.data.loader import ImageDataset, ResumableLoader, check_sizes, start_worker, usable_cores, whole_batch
from project.data.sampling import EvaluationSampler, TrainingSampler
from workbench.errors import UserError


class Pictures:
    """Stands in for a PixelStore: random images, and partners that are their negatives."""

    def __init__(self, sizes, has_targets=False):
        self.has_targets = has_targets
        generator = np.random.default_rng(0)
        self.pictures = [generator.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, number):
        return self.pictures[number]

    def has_target(self, number):
        return self.has_targets

    def parts(self, number, window):
        picture = self.pictures[number] if window is None else self.pictures[number][window]
        return picture, 255 - picture if self.has_targets else None

    def height(self, number):
        return self.pictures[number].shape[0]

    def width(self, number):
        return self.pictures[number].shape[1]


KEYS = np.arange(1000, 1010)


def training_loader(workers: int, seed: int = 1, batch_size: int = 4) -> ResumableLoader:
    dataset = ImageDataset(Pictures([(40, 50)] * 10, has_targets=True), KEYS, Augmenter(Augment(shift=0.1), 16))
    return ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=TrainingSampler(10, seed, repeats=2),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=whole_batch,
        worker_init_fn=start_worker,
    )


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None or b is not None)


def test_a_batch_holds_each_draws_picture_and_partner():
    dataset = ImageDataset(Pictures([(20, 30)] * 10, has_targets=True), KEYS)
    batch = dataset[3], dataset.__getitems__([(7, 5), (2, 6)])
    assert batch[0].image.shape == (1, 3, 20, 30)
    raw = batch[1]
    assert raw.image.shape == raw.target.shape == (2, 3, 20, 30)
    assert raw.image.dtype == torch.uint8 and raw.image.is_contiguous()
    assert raw.index.tolist() == [7, 2] and raw.seed.tolist() == [5, 6]
    for position, number in enumerate((7, 2)):
        assert np.array_equal(raw.image[position].numpy(), dataset.store[number].transpose(2, 0, 1))
    assert torch.equal(raw.target, 255 - raw.image)


def test_training_batches_do_not_depend_on_the_workers():
    alone, together = training_loader(0), training_loader(2)
    for epoch in range(2):
        for loader in (alone, together):
            loader.sampler.set_epoch(epoch)
        first, second = list(alone), list(together)
        assert len(first) == len(second) == 5
        assert all(same(a, b) for a, b in zip(first, second, strict=True))
        assert all(torch.equal(batch.target, 255 - batch.image) for batch in first)
        crops = torch.cat([batch.image for batch in first]).flatten(1)
        assert len({crop.numpy().tobytes() for crop in crops}) == 20  # no two workers draw the same change


def test_another_epoch_and_another_seed_give_other_batches():
    loader = training_loader(0)
    first = next(iter(loader))
    assert same(first, next(iter(training_loader(0))))
    loader.sampler.set_epoch(1)
    assert not same(first, next(iter(loader)))
    assert not same(first, next(iter(training_loader(0, seed=2))))


def test_a_pass_goes_on_where_it_was_left():
    loader = training_loader(0)
    loader.sampler.set_epoch(3)
    whole = list(loader)
    loader.batches_done = lambda loader: 2
    assert len(loader) == 5
    rest = list(loader)
    assert len(rest) == 3 and all(same(a, b) for a, b in zip(rest, whole[2:], strict=True))


def test_the_epoch_may_be_told_after_the_iterator_is_made():
    """Lightning does so when it resumes; workers that fetch ahead must not have started."""
    expected = training_loader(0)
    expected.sampler.set_epoch(5)
    loader = training_loader(1)
    iterator = iter(loader)
    loader.sampler.set_epoch(5)
    assert same(next(iterator), next(iter(expected)))


def test_evaluation_takes_whole_pictures_or_their_middles():
    store = Pictures([(20, 30)] * 3)
    batch = ImageDataset(store, KEYS, crop=8).__getitems__([0, 1])
    assert batch.target is None
    assert np.array_equal(batch.image[1].numpy(), store[1][6:14, 11:19].transpose(2, 0, 1))
    assert batch.seed.tolist() == [1000, 1001]
    loader = ResumableLoader(
        ImageDataset(store, KEYS[:3]), batch_size=2, sampler=EvaluationSampler(KEYS[:3]), collate_fn=whole_batch
    )
    assert [batch.index.tolist() for batch in loader] == [[0, 1], [2]]


@pytest.mark.parametrize(("training", "way_out"), [(True, r"--data\.crop"), (False, r"--data\.eval_batch_size 1")])
def test_unequal_pictures_in_a_batch(training, way_out):
    store = Pictures([(20, 30), (20, 31)])
    augmenter = Augmenter(Augment(hflip=False, vflip=False, quarter_turns=False), None) if training else None
    with pytest.raises(UserError, match=rf"30x20 and 31x20 pixels(.|\n)*{way_out}"):
        ImageDataset(store, KEYS, augmenter).__getitems__([(0, 1), (1, 2)])
    with pytest.raises(UserError, match=rf"30x20 and 31x20 pixels(.|\n)*{way_out}"):
        check_sizes(store, None, False, training)


def test_sizes_are_looked_at_before_the_first_batch():
    check_sizes(Pictures([(20, 30), (20, 30)]), None, False, training=True)
    check_sizes(Pictures([(20, 30), (25, 31)]), 20, False, training=False)
    with pytest.raises(UserError, match="20x20 and 21x20"):
        check_sizes(Pictures([(20, 20), (20, 31)]), 21, False, training=False)
    with pytest.raises(UserError, match="30x20 and 20x30"):  # a quarter turn swaps the sides
        check_sizes(Pictures([(20, 30)]), None, True, training=True)


def test_there_is_a_core():
    assert usable_cores() >= 1


class Gone(Pictures):
    def parts(self, number, window):
        raise UserError("a.png has changed since it was checked. Run again.") from OSError("no such file")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_that_a_worker_finds_comes_without_its_trace(workers):
    loader = ResumableLoader(
        ImageDataset(Gone([(20, 30)] * 10), KEYS),
        sampler=EvaluationSampler(KEYS),
        num_workers=workers,
        collate_fn=whole_batch,
    )
    with pytest.raises(UserError) as error:
        next(iter(loader))
    assert str(error.value) == "a.png has changed since it was checked. Run again."
