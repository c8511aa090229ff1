"""Pairs of condition and colors: what is in which channel, and what it depends on."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import color

from project.data.pairs import Coloring, GrayToColor, Hints, LinesToColor, PaletteHints, SpatialHints, XDoG
from project.data.pairs.color import blur
from project.data.statistics import Statistics
from workbench.errors import UserError

INDEX = torch.arange(4)
SEED = torch.tensor([11, 12, 13, 2**62])


def hwc(batch):
    return batch.permute(0, 2, 3, 1).double().numpy()


def test_gray_photographs_are_lightness(images):
    image = images()
    pair = GrayToColor()(image, None, INDEX, SEED, True)
    lab = color.rgb2lab(hwc(image))
    assert pair.target is image and pair.seed is SEED and pair.index is INDEX
    assert pair.input.shape == (4, 1, 40, 56)
    assert np.allclose(pair.input[:, 0].numpy() * 100, lab[..., 0], atol=5e-3)
    lab[..., 1:] = 0
    assert np.allclose(hwc(pair.baseline), color.lab2rgb(lab), atol=1e-3)
    assert torch.equal(pair.baseline[:, 0], pair.baseline[:, 2])
    assert GrayToColor.keeps_lightness and not LinesToColor.keeps_lightness


def test_lines_of_a_folder_pair(images):
    image, target = images(1), images(2)
    pair = LinesToColor(SpatialHints())(image, target, INDEX, SEED, False)
    assert pair.target is target and pair.input.shape == (4, 5, 40, 56)
    expected = [Image.fromarray((one * 255).round().astype(np.uint8)).convert("L") for one in hwc(image)]
    assert np.allclose(pair.input[:, 0].numpy(), np.stack(expected) / 255, atol=0.51 / 255)
    assert torch.equal(pair.baseline, pair.input[:, :1].expand(-1, 3, -1, -1))
    assert torch.equal(pair.input[:, 1:], SpatialHints().deterministic(target, SEED, 10))  # the target's colors


def test_lines_of_one_folder_are_drawn(images):
    image = images()
    maker = LinesToColor()
    pair = maker(image, None, INDEX, SEED, False)
    assert pair.target is image and isinstance(maker.lines, XDoG) and type(maker.hints) is Hints
    for position in range(4):
        generator = torch.Generator().manual_seed(int(SEED[position]))
        assert torch.equal(pair.input[position, None], XDoG()(image[position, None], generator))


@pytest.mark.parametrize("maker", [GrayToColor(SpatialHints(position="gaussian")), LinesToColor(PaletteHints(5))])
def test_the_same_pair_with_other_hints(images, maker):
    pair = maker(images(), None, INDEX, SEED, False)
    same = maker.with_hints(pair, maker.hints.eval_count)
    assert torch.equal(same.input, pair.input) and same.target is pair.target
    none, few, many = (maker.with_hints(pair, count).input for count in (0, 2, 5))
    assert not none[:, 1:].any()
    assert torch.equal(none[:, :1], pair.input[:, :1]) and torch.equal(many[:, :1], pair.input[:, :1])
    masks = [planes[:, 4::4].amax((2, 3)) if maker.hints.slots else planes[:, 4] for planes in (few, many)]
    assert (masks[1] >= masks[0]).all() and masks[1].sum() > masks[0].sum()


def test_hints_do_not_follow_the_lines_chance(images):
    """Both come from one number; were it one row of chance, squares would lie where strokes are broad."""
    generator = torch.Generator().manual_seed(11)
    top = SpatialHints().deterministic(images(), SEED, 1)[0, 3].nonzero()[0]
    drawn = torch.rand(128, 2, generator=generator)[0] * torch.tensor([35, 51])
    assert not torch.equal(top, drawn.long())


def test_hint_planes_are_standardized():
    mean, std = GrayToColor(PaletteHints(2)).normalization([0.5, 0.4, 0.3], [0.2, 0.1, 0.3])
    assert mean == pytest.approx([0.299 * 0.5 + 0.587 * 0.4 + 0.114 * 0.3] + [0.0] * 8)
    assert std == pytest.approx([0.299 * 0.2 + 0.587 * 0.1 + 0.114 * 0.3] + [0.15] * 8)
    assert LinesToColor().normalization([0.5], [0.25]) == ([0.5], [0.25])
    # Ten exact hints of bright colors on 128 x 128, as most networks see them in the test.
    images = torch.rand(4, 3, 1, 1).expand(-1, -1, 128, 128).clamp_min(0.7)
    planes = SpatialHints().deterministic(images, torch.arange(4), 10)
    assert 0.5 < float(planes.std(dim=(0, 2, 3)).mean()) / std[-1] < 2


def test_a_coloring_of_your_own_is_one_method_that_takes_gray_images_and_rgb(images):
    class RedToColor(Coloring):
        def condition_of(self, image):
            return image[:, :1]

    pair = RedToColor()(images(), None, INDEX, SEED, True)
    assert torch.equal(pair.baseline[:, 2], images()[:, 0])
    gray = images(count=1)[:, :1]
    for maker in (GrayToColor(), LinesToColor()):
        rgb = maker.condition_of(gray.expand(-1, 3, -1, -1))
        assert torch.allclose(maker.condition_of(gray), rgb, rtol=0, atol=1e-6)


def statistics(mean, std):
    return Statistics(torch.tensor(mean), torch.tensor(std), 100)


GRAY, COLOR, ONE = statistics([0.4] * 3, [0.2] * 3), statistics([0.4, 0.4, 0.41], [0.2] * 3), statistics([0.4], [0.2])


@pytest.mark.parametrize("maker", [GrayToColor(), LinesToColor()])
def test_images_without_color_are_refused(maker):
    maker.check(COLOR, COLOR)
    maker.check(GRAY, COLOR)  # lines are gray
    for found, said in ((GRAY, r"All training images are gray[\s\S]*--data\.root"), (ONE, r"--data\.channels 3")):
        with pytest.raises(UserError, match=said):
            maker.check(COLOR, found)


# Drawn lines, against SciPy


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


def test_every_image_is_drawn_differently(smooth):
    drawn = XDoG()(smooth(1).expand(6, -1, -1, -1), None)
    assert drawn.shape == (6, 1, 40, 56) and ((drawn >= 0) & (drawn <= 1)).all()
    assert all(not torch.equal(drawn[0], other) for other in drawn[1:])


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
