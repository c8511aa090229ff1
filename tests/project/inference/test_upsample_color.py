"""Upsampling colors: resampling, lightness, and lines over paint."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab

from project.inference.upsample_color import LazyResize, clip_to_gamut, multiply_lines, split_ink


def rgb_to_lab(rgb):
    """(1, 3, H, W) -> (H, W, 3), by another library."""
    return rgb2lab(rgb[0].permute(1, 2, 0).double().numpy())


@pytest.mark.parametrize("size", [(97, 61), (20, 45), (13, 11), (20, 30)])
def test_rows_of_a_resized_image_are_those_of_the_whole(size):
    image = torch.rand(1, 2, 20, 30, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(image, size, mode="bilinear", antialias=size[0] < 20 or size[1] < 30)
    resized = LazyResize(image, *size)
    for top in range(0, size[0], 6):
        stop = min(top + 6, size[0])
        torch.testing.assert_close(resized.rows(top, stop), expected[:, :, top:stop])
    flat = LazyResize(torch.full((1, 1, 3, 2), 0.3), *size).rows(0, size[0])
    torch.testing.assert_close(flat, torch.full((1, 1, *size), 0.3))


def test_the_lightness_is_kept_also_where_no_screen_has_the_color():
    generator = torch.Generator().manual_seed(0)
    lightness = torch.rand(1, 1, 40, 50, generator=generator) * 100
    lightness[..., :2, :] = torch.tensor([0.0, 100.0])[:, None]
    ab = (torch.rand(1, 2, 40, 50, generator=generator) - 0.5) * 200
    lab = rgb_to_lab(clip_to_gamut(lightness, ab))
    assert np.abs(lab[..., 0] - lightness[0, 0].numpy()).max() < 0.6
    wanted = np.arctan2(*ab[0].numpy()[::-1])
    colored = np.hypot(lab[..., 1], lab[..., 2]) > 20
    assert colored.mean() > 0.4
    turned = np.angle(np.exp(1j * (np.arctan2(lab[..., 2], lab[..., 1]) - wanted)))
    assert np.median(np.abs(turned[colored])) < 0.1


def test_colors_that_a_screen_has_are_not_touched():
    rgb = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    lab = torch.from_numpy(rgb_to_lab(rgb)).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(clip_to_gamut(lab[:, :1], lab[:, 1:]), rgb, atol=2e-3, rtol=0)


ORANGE, BLUE = (1.0, 0.5, 0.0), (0.0, 0.25, 0.75)


def drawing(scale=1):
    """A drawing with two areas, a line of 2 pixels between them, and its paint: (lines, paint), 60 x 80 pixels."""
    lines = torch.ones(1, 1, 60 * scale, 80 * scale)
    lines[..., 40 * scale : 42 * scale] = 0
    paint = torch.empty(1, 3, 60 * scale, 80 * scale)
    paint[..., : 41 * scale] = torch.tensor(ORANGE)[:, None, None]
    paint[..., 41 * scale :] = torch.tensor(BLUE)[:, None, None]
    return lines, paint


def test_the_paint_beneath_a_line_comes_from_beside_it():
    lines, expected = drawing()
    paint, paper = split_ink(expected * lines, lines)
    torch.testing.assert_close(paper, torch.ones_like(lines))
    away = lines[0, 0] > 0
    torch.testing.assert_close(paint[0][:, away], expected[0][:, away])
    beneath = paint[0][:, ~away]
    between = (torch.tensor(ORANGE) + torch.tensor(BLUE)) / 2
    assert (beneath - between[:, None]).abs().max() < 0.3
    torch.testing.assert_close(multiply_lines(paint, paper, lines), expected * lines)


def test_an_enlarged_drawing_has_sharp_lines_and_no_dark_seams():
    (small, painted), (lines, expected) = drawing(), drawing(4)
    paint, paper = (LazyResize(part, 240, 320).rows(0, 240) for part in split_ink(painted * small, small))
    output = multiply_lines(paint, paper, lines)
    assert (output[..., 160:168] == 0).all()
    off = (output - expected * lines).abs().amax(dim=(0, 1, 2))
    assert off[:156].max() < 1e-4
    assert off[172:].max() < 1e-4
    assert output[0, :, 100, 159].sum() > 0.9 * min(sum(ORANGE), sum(BLUE))  # right beside the line


def test_gray_areas_and_wide_ink_are_not_darkened_twice_and_bleed_nowhere():
    lines = torch.ones(1, 1, 60, 80)
    lines[..., 20:45, 10:50] = 0.6
    colors = torch.where(lines < 1, 0.4, 0.9).expand(-1, 3, -1, -1) * torch.tensor(ORANGE)[:, None, None]
    paint, paper = split_ink(colors, lines)
    torch.testing.assert_close(multiply_lines(paint, paper, lines), colors)
    # Wide ink stays black, whatever the network painted there.
    lines[..., 20:45, 10:50], colors = 0, torch.full((1, 3, 60, 80), 0.5)
    output = multiply_lines(*split_ink(colors, lines), lines)
    assert (output[..., 20:45, 10:50] == 0).all()
    torch.testing.assert_close(output[..., :20, :], colors[..., :20, :])
