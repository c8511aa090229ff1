"""A model that colors, as a function on 8-bit pixels: sizes, lightness, lines, hints, memory."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from torch import nn

from project.data.pairs import GrayToColor, LinesToColor, NoHints, PaletteHints, SpatialHints
from project.inference.prediction import colorist
from project.inference.prediction.colorist import Colorist, working_side
from project.inference.prediction.hints_file import Hint
from workbench.errors import UserError

CPU = torch.device("cpu")
BROWN = torch.tensor([0.9, 0.6, 0.4])[:, None, None]
random = np.random.default_rng(0)


class Function(nn.Module):
    """A function in place of a network, and what it was given."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seen = function, []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.function(x)


def brown(x):
    return x[:, :1] * BROWN


def make(pairs, function=brown, size=32, **options):
    return Colorist(Function(function), pairs, size, **{"device": CPU, "tile": 64, "overlap": 32, **options})


def smooth(height, width, channels):
    """An image without noise, which would not survive any resizing."""
    y, x = np.mgrid[:height, :width] / (height + width)
    waves = [np.sin(9 * x + 5 * c) * np.cos(7 * y + c) for c in range(channels)]
    return np.uint8(127.5 + 110 * np.stack(waves, axis=2))


def lightness(pixels):
    return rgb2lab(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))[..., 0]


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (300, 200, 64, 64),  # shrunk
        (20, 30, 64, 64),  # enlarged
        (300, 200, 0, 200),  # as it is
        (64, 90, 64, 64),
        (1, 1000, 64, 1),  # a strip is not enlarged without end
        (10, 100, 64, 25),  # its longer side becomes 250, within 4 * 64
        (1, 1, 64, 64),
        (5000, 2, 64, 2),
    ],
)
def test_the_working_size(height, width, size, expected):
    assert working_side(height, width, size) == expected
    assert working_side(width, height, size) == expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(131, 202), (20, 27), (32, 50)])
def test_a_photograph_keeps_its_own_lightness_at_full_size(size, channels):
    pixels = smooth(*size, channels)
    answer = make(GrayToColor())(pixels)
    assert answer.shape == (*size, 3)
    assert answer.dtype == np.uint8
    assert np.abs(lightness(answer) - lightness(pixels)).max() < 1.2  # half a unit, and 8 bits
    lab = rgb2lab(answer)
    assert (lab[..., 1] > 2).mean() > 0.9
    assert (lab[..., 2] > 5).mean() > 0.9


def test_fine_detail_of_a_photograph_survives_a_coarse_answer():
    pixels = random.integers(0, 256, (128, 192, 1), dtype=np.uint8)
    assert np.abs(lightness(make(GrayToColor(), size=16)(pixels)) - lightness(pixels)).max() < 1.2


def test_colors_land_where_the_network_put_them():
    red, blue = (torch.tensor(color)[:, None, None] for color in ([0.8, 0.2, 0.2], [0.2, 0.2, 0.8]))

    def halves(x):
        left = torch.arange(x.shape[3]) < x.shape[3] // 2
        return torch.where(left, red, blue).expand(len(x), 3, *x.shape[2:])

    answer = make(GrayToColor(), halves)(np.full((96, 160, 1), 110, dtype=np.uint8)).astype(int)
    assert (answer[:, :72, 0] > answer[:, :72, 2] + 50).all()
    assert (answer[:, 88:, 2] > answer[:, 88:, 0] + 50).all()


def test_the_network_sees_the_whole_picture_at_its_size_and_what_it_is_to_see():
    pixels = smooth(96, 160, 3)
    network = make(LinesToColor())
    network(pixels)
    (seen,) = network.model.seen
    shrunk = np.asarray(Image.fromarray(pixels).resize((53, 32), Image.Resampling.BOX))
    assert seen.shape == (1, 1, 32, 53)
    np.testing.assert_allclose(seen[0, 0], shrunk @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-5)


def test_at_its_own_size_a_picture_goes_through_in_tiles():
    pixels = smooth(130, 170, 1)
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 3, 3, padding=1)
    whole = make(LinesToColor(), layer, size=0, tile=0)
    tiled = make(LinesToColor(), layer, size=0, batch=2)
    np.testing.assert_allclose(tiled(pixels), whole(pixels).astype(int), atol=1)
    assert len(whole.model.seen) == 1
    assert {seen.shape[2:] for seen in tiled.model.seen} != {(130, 170)}
    assert max(max(seen.shape[2:]) for seen in tiled.model.seen) <= 64


def test_line_art_at_its_own_size_is_the_answer_as_it_is():
    pixels = random.integers(0, 256, (40, 60, 1), dtype=np.uint8)
    answer = make(LinesToColor(), lambda x: x[:, :1] * 0 + BROWN, size=0)(pixels)
    assert (answer == (BROWN * 255).round().to(torch.uint8).flatten().numpy()).all()


def test_line_art_keeps_its_own_lines_at_full_size():
    pixels = np.full((320, 480, 1), 255, dtype=np.uint8)
    pixels[100:104], pixels[:, 200:206] = 0, 0
    answer = make(LinesToColor(), size=64)(pixels)
    assert (answer[pixels[..., 0] == 0] == 0).all()
    paper = answer[pixels[..., 0] == 255]
    np.testing.assert_allclose(paper, np.broadcast_to([230, 153, 102], paper.shape), atol=12)


def test_what_is_carried_over_in_bands_has_no_seams(monkeypatch):
    pixels = random.integers(0, 256, (100, 150, 3), dtype=np.uint8)
    for pairs in (GrayToColor(), LinesToColor()):
        whole = make(pairs)(pixels)
        with monkeypatch.context() as patch:
            patch.setattr(colorist, "PIXELS_AT_ONCE", 1000)
            shares = []
            np.testing.assert_allclose(make(pairs)(pixels, shares.append), whole.astype(int), atol=1)
        assert len(shares) == 17
        assert shares == sorted(shares)
        assert shares[-1] == 1


HINTS = (Hint(150.7, 20, (255, 0, 51)), Hint(0, 99, (0, 102, 0)))


def test_hints_lie_at_their_places_at_any_size():
    for size in (50, 100, 25):
        network = make(GrayToColor(SpatialHints(eval_patch=1)), size=size, tile=256)
        network(smooth(100, 200, 1), hints=HINTS)
        (seen,) = network.model.seen
        assert seen.shape == (1, 5, size, 2 * size)
        planes = seen[0, 1:]
        assert planes[3].sum() == 2
        for x, y, color in HINTS:
            there = planes[:, int(y) * size // 100, int(x) * size // 100]
            torch.testing.assert_close(there, torch.tensor([*color, 255]) / 255)


def test_hints_reach_the_tiles_that_they_lie_in():
    network = make(GrayToColor(SpatialHints(eval_patch=1)), lambda x: x[:, 1:4], size=0)
    pixels = np.full((100, 200, 1), 128, dtype=np.uint8)
    answer = network(pixels, hints=HINTS).astype(int)
    colored = np.argwhere(np.ptp(answer, axis=2) > 8).tolist()
    assert colored == [[20, 150], [99, 0]]


def test_a_palette_is_the_same_everywhere():
    network = make(LinesToColor(PaletteHints(colors=3)), size=32)
    network(smooth(70, 100, 1), hints=[Hint(0, 0, (255, 255, 255)), Hint(0, 0, (0, 51, 0))])
    (seen,) = network.model.seen
    assert seen.shape == (1, 13, 32, 46)
    planes = seen[0, 1:]
    assert (planes == planes[:, :1, :1]).all()
    assert planes[3::4, 0, 0].tolist() == [1, 1, 0]
    torch.testing.assert_close(planes[:3, 0, 0], torch.tensor([0, 0.2, 0]))  # dark colors first
    assert planes[4:7, 0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("hints", [NoHints(), SpatialHints(), PaletteHints(colors=2)])
def test_without_hints_a_network_colors_on_its_own(hints):
    network = make(GrayToColor(hints))
    network(smooth(40, 70, 1))
    (seen,) = network.model.seen
    assert seen.shape[1] == 1 + hints.channels
    assert (seen[:, 1:] == 0).all()


def test_what_is_transparent_is_seen_on_white():
    pixels, alpha = np.zeros((40, 64, 1), dtype=np.uint8), np.zeros((40, 64), dtype=np.uint8)
    alpha[:, 32:] = 255
    for like in (pixels, np.repeat(pixels, 3, axis=2)):
        network = make(LinesToColor(), size=40)
        network(like, alpha=alpha)
        torch.testing.assert_close(network.model.seen[0][0, 0, :, :32], torch.ones(40, 32))
        assert (network.model.seen[0][..., 32:] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (300, 1), (2, 3)])
@pytest.mark.parametrize("working", [0, 32])
def test_the_narrowest_pictures_are_colored(size, working):
    for pairs in (GrayToColor(SpatialHints()), LinesToColor(SpatialHints())):
        hint = Hint(size[1] - 0.5, size[0] - 0.5, (255, 0, 0))
        assert make(pairs, size=working)(smooth(*size, 1), hints=[hint]).shape == (*size, 3)


def test_an_answer_that_is_no_picture_in_color_is_refused():
    pixels = smooth(40, 50, 1)
    with pytest.raises(ValueError, match="not finite"):
        make(GrayToColor(), lambda x: brown(x) / 0)(pixels)
    with pytest.raises(ValueError, match="gray"):
        make(GrayToColor(), lambda x: x)(pixels)
    with pytest.raises(ValueError, match="2 channels"):
        make(GrayToColor(), lambda x: torch.cat([x, x], dim=1))(pixels)
    with pytest.raises(UserError, match="at least 96"):
        make(GrayToColor(), tile=64, overlap=33)


def test_where_memory_is_short_the_whole_is_cut_into_tiles():
    def greedy(x):
        if x.shape[3] > 64:
            raise RuntimeError("CUDA out of memory. Tried")
        return brown(x)

    patient = make(LinesToColor(), greedy, size=100, tile=256)
    assert patient(smooth(200, 300, 1)).shape == (200, 300, 3)
    assert patient.tile == 64
