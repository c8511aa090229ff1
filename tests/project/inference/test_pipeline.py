"""Restoration and colorization as functions on 8-bit pixels: rounding, channels, sizes, lightness, lines, memory."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from torch import nn

from project.data.pairs import GrayToColor, Hints, LinesToColor, PaletteHints, Point, SpatialHints
from project.inference import pipeline
from project.inference.hints import HintRequest
from project.inference.pipeline import (
    ColorizationPipeline,
    RestorationPipeline,
    coloring_of,
    make_pipeline,
    working_side,
    working_size,
)
from project.networks import UNet
from workbench.checkpoint import Checkpoint
from workbench.errors import UserError

CPU = torch.device("cpu")
BROWN = torch.tensor([0.9, 0.6, 0.4])[:, None, None]
COLOR = np.random.default_rng(0).integers(0, 256, (70, 101, 3), dtype=np.uint8)
GRAY = COLOR[..., :1]


class Function(nn.Module):
    """A function in place of a network, and what it was given."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seen = function, []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.function(x)


def restorer(function, data=None, **options):
    options = {"device": CPU, "tile": 64, "overlap": 32, **options}
    return RestorationPipeline(Function(function), data or {"channels": 3}, **options)


def brown(x):
    return x[:, :1] * BROWN


def colorizer(pairs, function=brown, size=32, **options):
    return ColorizationPipeline(
        Function(function), pairs, size, **{"device": CPU, "tile": 64, "overlap": 32, **options}
    )


def smooth(height, width, channels):
    """An image without noise, which would not survive any resizing."""
    y, x = np.mgrid[:height, :width] / (height + width)
    waves = [np.sin(9 * x + 5 * c) * np.cos(7 * y + c) for c in range(channels)]
    return np.uint8(127.5 + 110 * np.stack(waves, axis=2))


def checkpoint(pairs=None, **data):
    return Checkpoint(Path("best.ckpt"), {"model": {}, "data": {"pairs": pairs, **data}}, {})


@pytest.mark.parametrize("shift", [-1.0, -0.49 / 255, 0.51 / 255, 1.0])
def test_values_are_clipped_and_rounded_to_the_nearest(shift):
    expected = np.clip(np.floor(COLOR.astype(np.float64) + 255 * shift + 0.5), 0, 255)
    np.testing.assert_array_equal(restorer(lambda x: x + shift)(COLOR), expected)


@pytest.mark.parametrize(("stem", "levels", "tile", "overlap"), [(2, 4, 128, 64), (4, 5, 256, 192)])
def test_a_unet_sees_the_same_blocks_of_pixels_in_tiles_as_on_the_whole_image(stem, levels, tile, overlap):
    network = UNet(widths=[4] * levels, convs=1, kernel_size=1, norm="none", stem=stem).eval()
    network.tail.weight.data.mul_(10)  # it starts out close to gray
    pixels = np.random.default_rng(1).integers(0, 256, (203, 345, 3), dtype=np.uint8)
    whole = RestorationPipeline(network, {"channels": 3}, device=CPU, tile=0)(pixels).astype(int)
    tiled = RestorationPipeline(network, {"channels": 3}, device=CPU, tile=tile, overlap=overlap)(pixels)
    assert np.ptp(whole) > 50
    assert np.abs(tiled - whole).max() <= 1


def test_gray_through_a_color_network_comes_back_gray_unless_it_was_trained_to_color():
    tint = torch.tensor([0.0, 0.1, 0.2])[:, None, None]
    result = restorer(lambda x: x * 0.5 + tint)(GRAY)
    assert result.shape == GRAY.shape
    np.testing.assert_allclose(result, GRAY * 0.5 + 25.5, atol=0.51)
    colored = restorer(lambda x: x, {"channels": 3, "target_root": "colors"})(GRAY)
    np.testing.assert_array_equal(colored, np.repeat(GRAY, 3, axis=2))
    luma = restorer(lambda x: x, {"channels": 1})(COLOR)
    np.testing.assert_allclose(luma[..., 0], COLOR @ np.array([0.299, 0.587, 0.114]), atol=0.51)


def make(model, config, **options):
    return make_pipeline(model, checkpoint(**config), HintRequest(), device=CPU, **options)


def test_the_noise_map_gets_sigma():
    network = UNet(in_channels=4, out_channels=3, widths=[4])
    config = {"pairs": {"class_path": "GaussianNoise", "init_args": {"noise_map": True}}}
    seen = []
    network.forward = lambda x: seen.append(x) or x[:, :3]
    np.testing.assert_array_equal(make(network, config, sigma=51.0)(COLOR), COLOR)
    assert seen[0].shape == (1, 4, 70, 101)
    assert (seen[0][:, 3] == 0.2).all()
    for wrong, sigma in ((config, None), ({}, 5.0), ({"pairs": {"class_path": "project.data.pairs.GrayToColor"}}, 5.0)):
        with pytest.raises(UserError, match="--sigma, the noise's standard deviation"):
            make(network, wrong, sigma=sigma)


def test_impossible_options_and_outputs_are_refused():
    with pytest.raises(UserError, match="5 input channels"):
        make(UNet(in_channels=5, out_channels=3, widths=[4]), {})
    with pytest.raises(UserError, match="at least 96"):
        restorer(lambda x: x, tile=64, overlap=33)
    for function, message in ((lambda x: x / 0, "not finite"), (lambda x: x[:, :2], "shape"), (torch.mean, "shape")):
        with pytest.raises(ValueError, match=message):
            restorer(function)(COLOR)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (300, 200, 64, 64),  # shrunk
        (20, 30, 64, 64),  # enlarged
        (20, 30, 0, 20),  # as it is
        (1, 1000, 64, 1),  # a strip is not enlarged without end
        (10, 100, 64, 25),  # its longer side becomes 250, within 4 * 64
    ],
)
def test_the_working_side(height, width, size, expected):
    assert working_side(height, width, size) == working_side(width, height, size) == expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(131, 202), (20, 27), (32, 50)])
def test_a_photograph_keeps_its_own_lightness_at_full_size(lightness, size, channels):
    pixels = smooth(*size, channels)
    output = colorizer(GrayToColor())(pixels)
    assert output.shape == (*size, 3)
    assert np.abs(lightness(output) - lightness(pixels)).max() < 1.2  # half a unit, and 8 bits
    lab = rgb2lab(output)
    assert (lab[..., 1] > 2).mean() > 0.9
    assert (lab[..., 2] > 5).mean() > 0.9
    assert np.abs(lightness(colorizer(GrayToColor(), size=16)(GRAY)) - lightness(GRAY)).max() < 1.2, "fine detail"


def test_the_network_sees_the_whole_image_at_its_size():
    pixels = smooth(96, 160, 3)
    network = colorizer(LinesToColor())
    network(pixels)
    (seen,) = network.model.seen
    shrunk = np.asarray(Image.fromarray(pixels).resize((53, 32), Image.Resampling.BOX))
    assert seen.shape == (1, 1, 32, 53)
    np.testing.assert_allclose(seen[0, 0], shrunk @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-5)


def test_at_its_own_size_an_image_goes_through_in_tiles():
    pixels = smooth(130, 170, 1)
    layer = nn.Conv2d(1, 3, 3, padding=1)
    whole, tiled = colorizer(LinesToColor(), layer, 0, tile=0), colorizer(LinesToColor(), layer, 0)
    np.testing.assert_allclose(tiled(pixels), whole(pixels).astype(int), atol=1)
    assert len(whole.model.seen) == 1
    assert max(max(seen.shape[2:]) for seen in tiled.model.seen) <= 64


def test_line_art_keeps_its_own_lines_at_full_size():
    pixels = np.full((320, 480, 1), 255, dtype=np.uint8)
    pixels[100:104], pixels[:, 200:206] = 0, 0
    output = colorizer(LinesToColor(), size=64)(pixels)
    assert (output[pixels[..., 0] == 0] == 0).all()
    paper = output[pixels[..., 0] == 255]
    np.testing.assert_allclose(paper, np.broadcast_to([230, 153, 102], paper.shape), atol=12)


@pytest.mark.parametrize("pairs", [GrayToColor(), LinesToColor()], ids=["gray", "lines"])
def test_what_is_upsampled_in_bands_has_no_seams(monkeypatch, pairs):
    whole = colorizer(pairs)(COLOR)
    monkeypatch.setattr(pipeline, "PIXELS_AT_ONCE", 1000)
    np.testing.assert_allclose(colorizer(pairs)(COLOR), whole.astype(int), atol=1)


HINTS = (Point(150.7, 20, (1.0, 0.0, 0.2)), Point(0, 99, (0.0, 0.4, 0.0)))


@pytest.mark.parametrize("size", [50, 100, 25])
def test_hints_lie_at_their_places_at_any_size(size):
    network = colorizer(GrayToColor(SpatialHints(eval_patch=1)), size=size, tile=256)
    network(smooth(100, 200, 1), hints=HINTS)
    (seen,) = network.model.seen
    assert seen.shape == (1, 5, size, 2 * size)
    planes = seen[0, 1:]
    assert planes[3].sum() == 2
    for x, y, color in HINTS:
        there = planes[:, int(y) * size // 100, int(x) * size // 100]
        torch.testing.assert_close(there, torch.tensor([*color, 1]))
    tiled = colorizer(GrayToColor(SpatialHints(eval_patch=1)), lambda x: x[:, 1:4], size=0)
    output = tiled(np.full((100, 200, 1), 128, dtype=np.uint8), hints=HINTS).astype(int)
    assert np.argwhere(np.ptp(output, axis=2) > 8).tolist() == [[20, 150], [99, 0]]
    for x, y in ((200, 0), (0, 100), (-1, 5), (float("nan"), 5)):
        with pytest.raises(ValueError, match=f"hint 1 at {x:g}, {y:g} is outside the 200 x 100 pixels"):
            network(smooth(100, 200, 1), hints=[Point(x, y, (1, 0, 0))])


def test_a_palette_is_the_same_everywhere():
    network = colorizer(LinesToColor(PaletteHints(colors=3)), size=32)
    network(smooth(70, 100, 1), hints=[Point(0, 0, (1, 1, 1)), Point(0, 0, (0, 0.2, 0))])
    (seen,) = network.model.seen
    planes = seen[0, 1:]
    assert (planes == planes[:, :1, :1]).all()
    assert planes[3::4, 0, 0].tolist() == [1, 1, 0]
    torch.testing.assert_close(planes[:3, 0, 0], torch.tensor([0, 0.2, 0]))  # dark colors first
    assert planes[4:7, 0, 0].tolist() == [1, 1, 1]


def test_without_hints_their_planes_are_empty():
    for hints in (Hints(), SpatialHints(), PaletteHints(colors=2)):
        network = colorizer(GrayToColor(hints))
        network(smooth(40, 70, 1))
        (seen,) = network.model.seen
        assert seen.shape[1] == 1 + hints.channels
        assert (seen[:, 1:] == 0).all()


def test_what_is_transparent_is_seen_on_white():
    pixels, alpha = np.zeros((40, 64, 1), dtype=np.uint8), np.zeros((40, 64), dtype=np.uint8)
    alpha[:, 32:] = 255
    for like in (pixels, np.repeat(pixels, 3, axis=2)):
        network = colorizer(LinesToColor(), size=40)
        network(like, alpha)
        torch.testing.assert_close(network.model.seen[0][0, 0, :, :32], torch.ones(40, 32))
        assert (network.model.seen[0][..., 32:] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 1), (2, 3)])
def test_the_narrowest_images_are_colored(size):
    hint = Point(size[1] - 0.5, size[0] - 0.5, (1, 0, 0))
    for working, kind in itertools.product([0, 32], [GrayToColor, LinesToColor]):
        assert colorizer(kind(SpatialHints()), size=working)(smooth(*size, 1), hints=[hint]).shape == (*size, 3)


def test_the_pair_maker_comes_from_the_configuration():
    palette = {"class_path": "project.data.pairs.PaletteHints", "init_args": {"colors": 3}}
    found = coloring_of(checkpoint({"class_path": "project.data.pairs.LinesToColor", "init_args": {"hints": palette}}))
    assert isinstance(found, LinesToColor)
    assert found.hints.slots == 3
    noise = {"class_path": "project.data.pairs.GaussianNoise"}
    for other in (None, noise, {"class_path": "no.longer.Here"}, {"class_path": "x"}, {}):
        assert coloring_of(checkpoint(other)) is None, "does not color, and need not be there"
    changed = checkpoint({"class_path": "project.data.pairs.GrayToColor", "init_args": {"tints": 3}})
    with pytest.raises(UserError, match=r"best\.ckpt: its .*GrayToColor cannot be built:\n.*tints"):
        coloring_of(changed)

    # Two folders win, where the pair maker has no use for the second.
    described = {"class_path": "project.data.pairs.GrayToColor", "init_args": {"hints": None}}
    assert isinstance(coloring_of(checkpoint(described)), GrayToColor)
    assert coloring_of(checkpoint(described, target_root="colors")) is None
    assert isinstance(coloring_of(checkpoint(described, source="drawings", root="photos")), GrayToColor)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ({"resize": 128, "crop": 64}, 128),
        ({"resize": None, "crop": 64}, 64),
        ({"source": "CIFAR10", "crop": 24}, 32),
        ({"source": "CIFAR10", "root": "photos", "crop": 64}, 64),
        ({}, 256),
    ],
)
def test_the_working_size_is_that_of_the_training(data, size):
    assert working_size(data) == size
