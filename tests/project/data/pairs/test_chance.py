"""What every pair maker draws: by the device's generator in training, by the image's own seed in evaluation."""

import pytest
import torch

from project.data.pairs import (
    GaussianNoise,
    GrayToColor,
    LinesToColor,
    Noise,
    PaletteHints,
    PoissonNoise,
    SaltAndPepper,
    SpatialHints,
    XDoG,
)

INDEX = torch.arange(4)
SEED = torch.tensor([11, 12, 13, 2**62])
MAKERS = [
    GaussianNoise((5, 50), noise_map=True),
    PoissonNoise((10, 50)),
    SaltAndPepper((0.02, 0.3)),
    GrayToColor(SpatialHints(position="gaussian")),
    LinesToColor(PaletteHints(5)),
    LinesToColor(SpatialHints(), XDoG()),
]


@pytest.mark.parametrize("maker", MAKERS)
def test_evaluation_follows_from_image_and_seed_alone(images, maker):
    def inputs(where, seed=SEED):
        return maker(images()[where], None, INDEX[where] + 70, seed[where], False).input

    everything = [0, 1, 2, 3]
    before = torch.random.get_rng_state()
    whole = inputs(everything)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)  # the global generator plays no part
    assert torch.equal(inputs(everything), whole)  # epoch after epoch
    # A matrix product of another size may round its last bit otherwise, so may lightness.
    atol = 0 if isinstance(maker, Noise) else 1e-6
    for where in ([3, 2, 1, 0], [0], [1], [2], [3]):
        torch.testing.assert_close(inputs(where), whole[where], rtol=0, atol=atol)
    assert (inputs(everything, SEED + 1) != whole).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("maker", MAKERS)
def test_training_follows_from_the_devices_generator_and_reads_no_value(images, blind, maker):
    image = images(1).requires_grad_()
    with pytest.raises(AssertionError, match="reads a value"), blind:
        image.max().item()
    for target in (None, images(2)) if maker.uses_target == "optional" else (None,):
        torch.manual_seed(3)
        with blind:
            first, second = (maker(image, target, INDEX, SEED, True).input for _ in range(2))
        assert first.shape[::2] == (4, 40) and not torch.equal(first, second)
        assert isinstance(maker, Noise) or not first.requires_grad
        torch.manual_seed(3)
        assert torch.equal(maker(images(1), target, INDEX, SEED + 1, True).input, first)
