"""Colors found at a small size, upsampled to the full image: under its own lightness, or under its own lines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from project.color import lab_to_rgb, rgb_to_lab

LIGHTNESS_TOLERANCE = 0.5  # of CIELAB's L, 0 to 100: a step of an 8-bit gray is about 0.4
DARKEST_PAPER = 0.35  # what is darker is ink however wide it is; lighter areas may be a shade over colors
HIDDEN = 4.0  # from a quarter of ink on, a pixel's color says nothing about the paint beneath it


class LazyResize:
    """An image (1, C, h, w) resized a few rows at a time: bilinear, antialiased where it shrinks."""

    def __init__(self, image: Tensor, height: int, width: int) -> None:
        rows = min(image.shape[2], height)  # enlarging waits for the rows that are asked for: they take the memory
        if image.shape[2:] != (rows, width):
            image = F.interpolate(image, (rows, width), mode="bilinear", antialias=True)
        self.image, self.height = image, height

    def rows(self, top: int, stop: int) -> Tensor:
        """(1, C, stop - top, width)."""
        there = self.image.shape[2]
        rows = torch.arange(top, stop, device=self.image.device)
        place = ((rows + 0.5) * there / self.height - 0.5).clamp(0, there - 1)
        above = place.long()
        below = (above + 1).clamp_max(there - 1)
        return torch.lerp(self.image[:, :, above], self.image[:, :, below], (place - above)[:, None])


def clip_to_gamut(lightness: Tensor, ab: Tensor) -> Tensor:
    """RGB of a given lightness, with colors as near to the wanted ones as sRGB has them at that lightness.

    Where there is no such color (white cannot be red), clipping alone would change the lightness: there a and b shrink
    towards gray, to the largest share of themselves that leaves the lightness as it is (six bisections).

    CIELAB's L, 0 to 100, (1, 1, H, W), and a and b, (1, 2, H, W) -> (1, 3, H, W), of that lightness to half a unit.
    """

    def is_off(rgb: Tensor, wanted: Tensor) -> Tensor:
        return (rgb_to_lab(rgb)[:, :1] - wanted).abs() > LIGHTNESS_TOLERANCE

    rgb = lab_to_rgb(torch.cat([lightness, ab], dim=1))
    wrong = is_off(rgb, lightness)[0, 0]
    if not wrong.any():
        return rgb
    light, color = lightness[:, :, wrong][:, :, None], ab[:, :, wrong][:, :, None]
    low, high = torch.zeros_like(light), torch.ones_like(light)
    for _ in range(6):
        share = (low + high) / 2
        off = is_off(lab_to_rgb(torch.cat([light, color * share], dim=1)), light)
        low, high = torch.where(off, low, share), torch.where(off, share, high)
    rgb[:, :, wrong] = lab_to_rgb(torch.cat([light, color * low], dim=1))[:, :, 0]
    return rgb


def split_ink(colors: Tensor, lines: Tensor) -> tuple[Tensor, Tensor]:
    """Take the ink off a colored drawing: the paint, and how light the paper beneath the lines is.

    The model is ``colors = paint * lines / paper``. The paper is the drawing without its thin dark lines (a
    morphological closing; gray areas stay gray). Where ink hides the paint, paint is the mean of its surroundings,
    each pixel weighted by how little ink it has. So the paint has no dark seams, can be enlarged, and gets its lines
    back from the full drawing by :func:`multiply_lines`, as sharp as they are there.

    The colored drawing (1, 3, h, w) and the gray one (1, 1, h, w; 1 paper, 0 ink) -> paint (1, 3, h, w) and paper
    (1, 1, h, w), all in [0, 1].
    """
    reach = max(2, round(min(lines.shape[2:]) / 48))  # wider than the lines of a drawing are, at any size
    window = {"kernel_size": 2 * reach + 1, "stride": 1, "padding": reach}
    paper = -F.max_pool2d(-F.max_pool2d(lines, **window), **window)
    hidden = (HIDDEN * (1 - lines / paper.clamp_min(DARKEST_PAPER))).clamp(0, 1)
    weight = (1 - hidden).square() + 1e-4  # where all is ink, all of it counts
    around = F.avg_pool2d(colors * weight, **window) / F.avg_pool2d(weight, **window)
    return torch.lerp(colors, around, hidden), paper


def multiply_lines(paint: Tensor, paper: Tensor, lines: Tensor) -> Tensor:
    """``paint * min(1, lines / paper)``: paint (1, 3, H, W); paper and lines (1, 1, H, W); all in [0, 1]."""
    return paint * (lines / paper.clamp_min(DARKEST_PAPER)).clamp_max(1)
