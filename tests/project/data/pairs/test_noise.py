"""Noise: how strong each degradation is, and what it depends on; which pair maker is taken."""

import pytest
import torch

from project.data.pairs import (
    GaussianNoise,
    GrayToColor,
    LinesToColor,
    Noise,
    PairedInput,
    PoissonNoise,
    SaltAndPepper,
    resolve_pairs,
)
from workbench.errors import UserError

INDEX = torch.arange(4)
SEED = torch.tensor([11, 12, 13, 2**62])


def batch(value=0.5, size=(128, 200)):
    return torch.full((4, 3, *size), value)


def noisy(maker, image, training=True, seed=SEED):
    return maker(image, None, INDEX[: len(image)], seed[: len(image)], training)


def test_gaussian_noise_has_its_sigma_and_is_not_clipped():
    image = batch(0.0)
    pair = noisy(GaussianNoise(25), image)
    assert pair.target is image and torch.equal(pair.baseline, pair.input) and torch.equal(pair.seed, SEED)
    assert pair.input.std().item() * 255 == pytest.approx(25, rel=0.01)
    assert abs(pair.input.mean().item()) * 255 < 0.3
    assert pair.input.min() < -0.2
    channels = pair.input.transpose(0, 1).flatten(1)
    assert torch.corrcoef(channels).fill_diagonal_(0).abs().max() < 0.02  # each channel its own noise


def test_a_range_is_drawn_for_each_image_and_the_map_holds_it():
    image = torch.zeros(200, 3, 24, 24)
    pair = GaussianNoise((5, 50), noise_map=True)(image, None, torch.arange(200), torch.arange(200), True)
    assert pair.input.shape == (200, 4, 24, 24) and pair.baseline.shape == image.shape
    sigma = pair.input[:, 3] * 255
    assert torch.equal(sigma.amin((1, 2)), sigma.amax((1, 2)))
    sigma = sigma[:, 0, 0]
    assert torch.allclose(sigma, pair.input[:, :3].flatten(1).std(1) * 255, rtol=0.1)
    assert 5 <= sigma.min() < 9 and 46 < sigma.max() <= 50
    assert sigma.mean().item() == pytest.approx(27.5, abs=3)


def test_poisson_noise_has_the_variance_of_counts():
    pair = noisy(PoissonNoise(20), batch(0.4))
    assert pair.input.mean().item() == pytest.approx(0.4, rel=0.01)
    assert pair.input.var().item() == pytest.approx(0.4 / 20, rel=0.03)
    counts = pair.input * 20
    assert torch.allclose(counts, counts.round(), atol=1e-4)


def test_salt_and_pepper_turns_whole_pixels():
    degraded = noisy(SaltAndPepper(0.2), batch()).input
    for value in (0.0, 1.0):
        share = (degraded == value).float()
        assert share.mean().item() == pytest.approx(0.1, rel=0.1)
        assert torch.equal(share.amin(1), share.amax(1))
    assert ((degraded == 0) | (degraded == 1) | (degraded == 0.5)).all()


def test_the_benchmark_and_evaluation_take_one_sigma(images):
    with pytest.raises(UserError, match="eval_sigma"):
        GaussianNoise((5, 50)).benchmark(images(), INDEX)
    maker, image = GaussianNoise((40, 50), eval_sigma=15), images()
    assert torch.equal(maker.benchmark(image, INDEX).input, GaussianNoise(15).benchmark(image, INDEX).input)
    assert (noisy(maker, image, training=False).input - image).std().item() * 255 == pytest.approx(15, rel=0.05)
    assert (noisy(maker, image, training=True).input - image).std().item() * 255 > 38
    with pytest.raises(UserError, match="kair is defined for GaussianNoise, not for PoissonNoise"):
        PoissonNoise().benchmark(images(), INDEX)


def test_a_noise_of_your_own_is_one_method_and_the_rest_is_inherited(images):
    class Darken(Noise):
        def degrade(self, image, generator):
            return image * 0.5, None

    pair = noisy(Darken(), images(), training=False)
    assert torch.equal(pair.input, images() * 0.5)
    assert list(Darken().preview(pair)) == ["input"] and Darken().preview(pair)["input"] is pair.baseline


def test_which_pairs_are_taken_for_one_folder_or_two(capsys):
    assert isinstance(resolve_pairs(None, None), GaussianNoise)
    assert isinstance(resolve_pairs(None, "color"), PairedInput)
    noise, lines = PoissonNoise(), LinesToColor()
    assert resolve_pairs(noise, None) is noise
    assert resolve_pairs(lines, None) is lines and resolve_pairs(lines, "color") is lines
    assert capsys.readouterr().out == ""
    for maker in (noise, GrayToColor()):
        assert isinstance(resolve_pairs(maker, "color"), PairedInput)
        assert f"{type(maker).__name__} is off" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--data\.target_root"):
        resolve_pairs(PairedInput(), None)


@pytest.mark.parametrize("sigma", [-1, 256, (50, 5), (0, 300), (1,), (1, 2, 3)])
def test_impossible_values(sigma):
    with pytest.raises(UserError, match=r"data\.pairs\.sigma is .* between 0 and 255"):
        GaussianNoise(sigma)
    for make in (lambda: GaussianNoise(eval_sigma=300), lambda: PoissonNoise(0), lambda: SaltAndPepper(1.5)):
        with pytest.raises(UserError, match=r"data\.pairs\.\w+ is"):
            make()
