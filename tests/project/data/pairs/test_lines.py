"""Drawn lines against SciPy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from project.data.pairs import XDoG
from project.data.pairs.color import blur
from workbench.errors import UserError


@pytest.fixture
def smooth(images):
    """Images with edges of every strength: noise, blurred."""

    def make(count=4, size=(40, 56)):
        noise = images(5, count, 3, size).numpy()
        return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 2, 2)) * 3 - 1).clamp(0, 1)

    return make


class Exact(XDoG):
    """Nothing is drawn at random but the shares of the strokes."""

    K, PHI, STROKES = (4.5, 4.5), (50.0, 50.0), 1


def test_each_image_has_its_own_blur(smooth):
    image, sigma = smooth(3), torch.tensor([0.4, 1.0, 2.5])
    blurred = blur(image, sigma.view(3, 1, 1, 1), 8)
    for position in range(3):
        expected = ndimage.gaussian_filter(
            image[position].double().numpy(), (0, *[float(sigma[position])] * 2), mode="nearest", radius=(0, 8, 8)
        )
        assert np.allclose(blurred[position].numpy(), expected, atol=1e-5)


def test_xdog_is_its_formula(smooth):
    image = smooth(2)
    drawn = Exact(sigma=0.5, epsilon=-0.01)(image, None)
    assert drawn.shape == (2, 1, 40, 56)
    for position in range(2):
        light = np.tensordot([0.299, 0.587, 0.114], image[position].double().numpy(), axes=(0, 0))
        narrow, wide = (
            ndimage.gaussian_filter(light, width, mode="nearest", radius=radius)
            for width, radius in ((0.5, 2), (2.25, 7))
        )
        difference = narrow - 0.95 * wide
        expected = np.where(difference >= -0.01, 1, 1 + np.tanh(50 * (difference + 0.01)))
        assert 0.02 < (expected < 0.5).mean() < 0.5
        assert np.allclose(drawn[position, 0].numpy(), expected, atol=1e-4)


def test_strokes_are_mixed(smooth):
    image = smooth()
    maker = Exact(sigma=0.5, epsilon=-0.01)
    once = maker(image, None)
    maker.STROKES = 3
    assert torch.allclose(maker(image, None), once, atol=1e-5)  # shares add up to 1
    fine, broad = (Exact(sigma=sigma, epsilon=-0.01)(image, None) for sigma in (0.3, 1.5))
    assert (fine - broad).abs().max() > 0.5
    assert (broad < 0.5).float().mean() > (fine < 0.5).float().mean()


def test_every_image_is_drawn_differently_by_the_generator_alone(smooth):
    drawn = XDoG()(smooth(1).expand(6, -1, -1, -1), None)
    assert drawn.shape == (6, 1, 40, 56) and ((drawn >= 0) & (drawn <= 1)).all()
    assert all(not torch.equal(drawn[0], other) for other in drawn[1:])
    before = torch.random.get_rng_state()
    first, second, other = (XDoG()(smooth(), torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_flat_images_are_paper_and_ink_lies_on_the_dark_side_of_an_edge():
    for value in (0.0, 0.4, 1.0):
        drawn = XDoG()(torch.full((2, 1, 3, 2), value), None)  # gray, and tiny
        torch.testing.assert_close(drawn, torch.ones(2, 1, 3, 2), rtol=0, atol=1e-6)  # shares of strokes add up to 1
    image = torch.full((1, 3, 20, 40), 0.9)
    image[..., 20:] = 0.3
    ink = (XDoG()(image, None) < 0.5)[0, 0]
    assert ink[:, 20].all()  # the first dark column
    assert not ink[:, :20].any() and not ink[:, 30:].any()
    assert XDoG()(image.to("meta"), None).shape == (1, 1, 20, 40)  # no value is read from the device


@pytest.mark.parametrize("options", [{"sigma": 0}, {"sigma": (8, 4)}, {"epsilon": 5}])
def test_impossible_values(options):
    with pytest.raises(UserError, match=rf"data\.pairs\.lines\.{next(iter(options))} is"):
        XDoG(**options)
