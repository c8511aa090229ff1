"""Drawn lines against SciPy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from project.data.pairs import AdaptiveThreshold, LineMaker, LinesToColor, XDoG
from project.data.pairs.lines import blur
from workbench.errors import UserError

MAKERS = [XDoG(), AdaptiveThreshold()]


@pytest.fixture
def smooth(images):
    """Images with edges of every strength: noise, blurred."""

    def make(count=4, size=(40, 56)):
        return torch.from_numpy(ndimage.gaussian_filter(images(5, count, 3, size).numpy(), (0, 0, 2, 2)) * 3 - 1).clamp(
            0, 1
        )

    return make


def luma(image):
    return np.tensordot([0.299, 0.587, 0.114], image.double().numpy(), axes=(0, 0))


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
    drawn = XDoG(sigma=0.5, k=4.5, gamma=0.95, epsilon=-0.01, phi=50, strokes=1)(image, None)
    assert drawn.shape == (2, 1, 40, 56)
    for position in range(2):
        light = luma(image[position])
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
    options = {"sigma": 0.5, "k": 4.5, "epsilon": -0.01, "phi": 50}
    alike = XDoG(**options, strokes=3)(image, None)
    assert torch.allclose(alike, XDoG(**options, strokes=1)(image, None), atol=1e-5)  # shares add up to 1
    fine, broad = (XDoG(**{**options, "sigma": sigma}, strokes=1)(image, None) for sigma in (0.3, 1.5))
    assert (fine - broad).abs().max() > 0.5
    assert (broad < 0.5).float().mean() > (fine < 0.5).float().mean()


@pytest.mark.parametrize("maker", MAKERS)
def test_every_image_is_drawn_differently(smooth, maker):
    drawn = maker(smooth(1).expand(6, -1, -1, -1), None)
    assert drawn.shape == (6, 1, 40, 56) and ((drawn >= 0) & (drawn <= 1)).all()
    assert all(not torch.equal(drawn[0], other) for other in drawn[1:])


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_flat_images_are_paper(maker, value):
    drawn = maker(torch.full((2, 3, 20, 30), value), None)
    torch.testing.assert_close(drawn, torch.ones(2, 1, 20, 30), rtol=0, atol=1e-6)  # shares of strokes add up to 1


@pytest.mark.parametrize("maker", MAKERS)
def test_ink_lies_on_the_dark_side_of_an_edge(maker):
    image = torch.full((1, 3, 20, 40), 0.9)
    image[..., 20:] = 0.3
    ink = (maker(image, None) < 0.5)[0, 0]
    assert ink[:, 20].all()  # the first dark column
    assert not ink[:, :20].any() and not ink[:, 30:].any()


def test_adaptive_threshold_is_its_formula(smooth):
    image = smooth(2)
    drawn = AdaptiveThreshold(size=11, offset=0.03)(image, None)
    sigma = 0.3 * ((11 - 1) * 0.5 - 1) + 0.8
    for position in range(2):
        light = luma(image[position])
        around = ndimage.gaussian_filter(light, sigma, mode="nearest", radius=6)
        certain = np.abs(light - around + 0.03) > 1e-5
        expected = light > around - 0.03
        assert 0.1 < expected.mean() < 0.9
        assert np.array_equal(drawn[position, 0].numpy()[certain], expected[certain])


@pytest.mark.parametrize("maker", MAKERS)
def test_gray_images_and_tiny_ones(maker):
    assert maker(torch.rand(2, 1, 3, 2), None).shape == (2, 1, 3, 2)


@pytest.mark.parametrize("maker", MAKERS)
def test_all_chance_comes_from_the_generator(smooth, maker):
    image = smooth()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second = (maker(image, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(maker(image, torch.Generator().manual_seed(6)), first)


@pytest.mark.parametrize("maker", MAKERS)
def test_drawing_reads_no_value_from_the_device(maker):
    assert maker(torch.rand(2, 3, 20, 30, device="meta"), None).shape == (2, 1, 20, 30)


def test_lines_of_your_own_are_one_method(images):
    class Halves(LineMaker):
        def __call__(self, image, generator):
            return (image[:, :1] > 0.5).float()

    image, number = images(), torch.arange(4)
    pair = LinesToColor(lines=Halves())(image, None, number, number, False)
    assert torch.equal(pair.input, (image[:, :1] > 0.5).float())


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: XDoG(sigma=0), "sigma"),
        (lambda: XDoG(k=(8, 4)), "k"),
        (lambda: XDoG(gamma=2), "gamma"),
        (lambda: XDoG(epsilon=5), "epsilon"),
        (lambda: XDoG(phi=0), "phi"),
        (lambda: XDoG(strokes=0), "strokes"),
        (lambda: AdaptiveThreshold(size=1), "size"),
        (lambda: AdaptiveThreshold(offset=(0, 2)), "offset"),
    ],
)
def test_impossible_values(make, key):
    with pytest.raises(UserError, match=rf"data\.pairs\.lines\.{key} is"):
        make()
