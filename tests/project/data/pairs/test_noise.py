"""Noise: how strong each damage is, and what it depends on."""

import numpy as np
import pytest
import torch

from project.data.pairs import GaussianNoise, Noise, PoissonNoise, SaltAndPepper
from workbench.errors import UserError

INDEX = torch.arange(4)
SEED = torch.tensor([11, 12, 13, 2**62])


def batch(value: float | None = None, channels: int = 3, size: tuple[int, int] = (40, 56)) -> torch.Tensor:
    if value is not None:
        return torch.full((4, channels, *size), value)
    levels = np.random.default_rng(0).integers(0, 256, (4, channels, *size))
    return torch.from_numpy(levels.astype(np.float32) / 255)


def noisy(maker, image, training=True, seed=SEED):
    return maker(image, None, INDEX[: len(image)], seed[: len(image)], training)


def test_gaussian_noise_has_its_sigma_and_is_not_clipped():
    image = batch(0.0, size=(128, 200))
    pair = noisy(GaussianNoise(25), image)
    assert pair.target is image and torch.equal(pair.baseline, pair.input)
    assert torch.equal(pair.seed, SEED)
    assert pair.input.std().item() * 255 == pytest.approx(25, rel=0.01)
    assert abs(pair.input.mean().item()) * 255 < 0.3
    assert pair.input.min() < -0.2
    channels = pair.input.transpose(0, 1).flatten(1)
    assert torch.corrcoef(channels).fill_diagonal_(0).abs().max() < 0.02  # each channel its own noise


def test_a_range_is_drawn_for_each_picture_and_the_map_tells_it():
    torch.manual_seed(0)
    image = torch.zeros(200, 3, 24, 24)
    pair = GaussianNoise((5, 50), noise_map=True)(image, None, torch.arange(200), torch.arange(200), True)
    assert pair.input.shape == (200, 4, 24, 24) and pair.baseline.shape == image.shape
    told = pair.input[:, 3] * 255
    assert torch.equal(told.amin((1, 2)), told.amax((1, 2)))
    told = told[:, 0, 0]
    measured = pair.input[:, :3].flatten(1).std(1) * 255
    assert torch.allclose(told, measured, rtol=0.1)
    assert 5 <= told.min() < 9 and 46 < told.max() <= 50
    assert told.mean().item() == pytest.approx(27.5, abs=3)


def test_evaluation_takes_eval_sigma_and_training_the_range():
    maker = GaussianNoise((40, 50), eval_sigma=10)
    image = batch(0.5, size=(100, 100))
    assert (noisy(maker, image, training=False).input - image).std().item() * 255 == pytest.approx(10, rel=0.03)
    assert (noisy(maker, image, training=True).input - image).std().item() * 255 > 38


def test_poisson_noise_has_the_variance_of_counts():
    pair = noisy(PoissonNoise(20), batch(0.4, size=(128, 200)))
    assert pair.input.mean().item() == pytest.approx(0.4, rel=0.01)
    assert pair.input.var().item() == pytest.approx(0.4 / 20, rel=0.03)
    counts = pair.input * 20
    assert torch.allclose(counts, counts.round(), atol=1e-4)


def test_salt_and_pepper_turns_whole_pixels():
    image = batch(0.5, size=(128, 200))
    damaged = noisy(SaltAndPepper(0.2), image).input
    for value in (0.0, 1.0):
        share = (damaged == value).float()
        assert share.mean().item() == pytest.approx(0.1, rel=0.1)
        assert torch.equal(share.amin(1), share.amax(1))
    assert ((damaged == 0) | (damaged == 1) | (damaged == 0.5)).all()


MAKERS = [GaussianNoise((5, 50), noise_map=True), PoissonNoise((10, 50)), SaltAndPepper((0.02, 0.3))]


@pytest.mark.parametrize("maker", MAKERS)
def test_evaluation_follows_from_the_pictures_number_alone(maker):
    image = batch()
    whole = noisy(maker, image, training=False).input
    torch.rand(7)  # the global generator plays no part
    reverse = torch.tensor([3, 2, 1, 0])
    assert torch.equal(maker(image[reverse], None, INDEX[reverse], SEED[reverse], False).input, whole[reverse])
    for position in range(4):
        alone = maker(image[position, None], None, INDEX[:1], SEED[position, None], False).input
        assert torch.equal(alone[0], whole[position])
    other = noisy(maker, image, training=False, seed=SEED + 1).input
    assert not any(torch.equal(other[position], whole[position]) for position in range(4))


@pytest.mark.parametrize("maker", MAKERS)
def test_training_follows_from_the_devices_generator(maker):
    image = batch()
    torch.manual_seed(3)
    first, second = noisy(maker, image).input, noisy(maker, image).input
    torch.manual_seed(3)
    assert torch.equal(noisy(maker, image).input, first)
    assert not torch.equal(first, second)


def test_the_benchmark_is_numpys_noise_for_each_picture_anew():
    image = batch()
    pair = GaussianNoise(25, noise_map=True).benchmark(image, INDEX)
    for position in range(4):
        clean = np.round(image[position].numpy() * 255).astype(np.uint8).transpose(1, 2, 0) / 255.0
        expected = clean + np.random.RandomState(0).normal(0, 25 / 255.0, (40, 56, 3))
        assert np.array_equal(pair.baseline[position].numpy(), expected.astype(np.float32).transpose(2, 0, 1))
    assert pair.input[:, 3].unique().item() == pytest.approx(25 / 255)
    assert torch.equal(pair.input[:, :3], pair.baseline)


def test_the_benchmark_wants_one_sigma():
    with pytest.raises(UserError, match="eval_sigma"):
        GaussianNoise((5, 50)).benchmark(batch(), INDEX)
    assert torch.equal(
        GaussianNoise((5, 50), eval_sigma=15).benchmark(batch(), INDEX).input,
        GaussianNoise(15).benchmark(batch(), INDEX).input,
    )
    with pytest.raises(UserError, match="kair is defined for GaussianNoise, not for PoissonNoise"):
        PoissonNoise().benchmark(batch(), INDEX)


def test_the_noise_map_needs_no_normalizing():
    assert GaussianNoise(noise_map=True).normalization([0.4, 0.5], [0.2, 0.3]) == ([0.4, 0.5, 0.0], [0.2, 0.3, 1.0])
    assert GaussianNoise().normalization([0.4], [0.2]) == ([0.4], [0.2])


def test_a_noise_of_ones_own_is_one_method():
    class Darken(Noise):
        def damage(self, image, generator):
            return image * 0.5, None

    assert torch.equal(noisy(Darken(), batch(0.5), training=False).input, batch(0.25))


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianNoise(-1),
        lambda: GaussianNoise((50, 5)),
        lambda: GaussianNoise(eval_sigma=300),
        lambda: GaussianNoise([0, 25, 50]),
        lambda: PoissonNoise(0),
        lambda: SaltAndPepper(1.5),
    ],
)
def test_impossible_values(make):
    with pytest.raises(UserError, match=r"data\.pairs\.\w+ is"):
        make()
