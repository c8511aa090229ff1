"""The filters of a network's first convolution, as images."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from project.callbacks.grid import to_image
from project.inference.inspection.drawing import fit, framed, mosaic, stack, text, under

CELL, SMALL = 60, 36
"""Pixels that a filter is enlarged to, as far as whole multiples go; and where there is a grid for each channel."""
ABREAST = 3
"""Such grids side by side."""
MOST = 256
"""Filters that are drawn; a layer of more shows its first ones."""


class Filters(NamedTuple):
    """Of a network's first convolution.

    Attributes:
        layer: Its name.
        weights: (filters, C, h, w), each of the C planes as it lies on the channels of the network's input.
        stem: Pixels a side that were put into one place before it (pixel-unshuffle); 1 for none.
    """

    layer: str
    weights: Tensor
    stem: int


@torch.no_grad()
def first_filters(network: nn.Module, x: Tensor) -> Filters | None:
    """The first convolution that a network comes by; None where it has none.

    Args:
        network: In evaluation mode.
        x: (1, C, H, W), what it takes.
    """
    names = {module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    met: list[tuple[nn.Conv2d, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda module, given, maps: met.append((module, given[0]))) for module in names
    ]
    try:
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    if not met:
        return None
    module, given = met[0]
    weights = module.weight.detach().float().cpu()
    channels = x.shape[1]
    stem = math.isqrt(max(1, given.shape[1] // channels))
    if module.groups > 1 or given.shape[1] != channels * stem**2:
        stem = 1
    # Channel c*s*s + i*s + j of unshuffled pixels is row i and column j of each square of channel c.
    return Filters(names[module], F.pixel_shuffle(weights, stem) if stem > 1 else weights, stem)


def draw_filters(filters: Filters, channels: list[str]) -> Image.Image:
    """Every filter as an image of its weights, gray for 0, each on its own scale.

    Args:
        filters: To draw.
        channels: What the input's channels are. Three are drawn as one image in color, others each in a grid.
    """
    weights = filters.weights[:MOST]
    largest = weights.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    planes = 0.5 + 0.5 * weights / largest
    count, inputs, height, width = filters.weights.shape
    columns = math.ceil(math.sqrt((2 if inputs == 3 else 1.2) * len(planes)))
    labels = [str(number) for number in range(len(planes))]

    def grid(some: Tensor) -> Image.Image:
        return mosaic([fit(to_image(plane), CELL if inputs == 3 else SMALL) for plane in some], columns, labels)

    size = f"{height} x {width} pixels"
    if filters.stem > 1:
        size += f" (a kernel of {height // filters.stem} x {width // filters.stem} squares of {filters.stem} x "
        size += f"{filters.stem} pixels, put back to their places)"
    shown = "" if count <= MOST else f", the first {MOST} of them"
    lines = [f"{filters.layer}: {count} filters{shown}", size, "each on its own scale, from gray, which is 0:"]
    if inputs == 3:
        lines[-1] += " a channel's color raises the answer where there is more of it, its complement lowers it"
        return framed(under(grid(planes), *lines))
    lines[-1] += " white raises the answer where there is more of the channel, black lowers it"
    if len(channels) != inputs:
        channels = [f"channel {number}" for number in range(inputs)]
    parts = [stack([text(name, 13), grid(planes[:, [number]])], gap=2) for number, name in enumerate(channels)]
    return framed(under(mosaic(parts, ABREAST, gap=10), *lines))
