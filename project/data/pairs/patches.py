"""Squares in a batch of images: where they lie, their mean colors, and how they look as planes.

All of it in a few operations on whole batches, on the device: nothing here loops over images or squares, and no shape
depends on what was drawn.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Position = Literal["uniform", "gaussian"]

LARGEST = 128  # side in pixels: 65535 times the pixels of a larger one is no 32-bit number any more


class Patches(NamedTuple):
    """N squares in each of B images, all wholly inside.

    Attributes:
        top: int64, (B, N), first row.
        left: int64, (B, N), first column.
        side: int64, (B, N), in pixels.
        there: bool, (B, N); the squares that are not are nowhere.
        largest: no side is longer.
    """

    top: Tensor
    left: Tensor
    side: Tensor
    there: Tensor
    largest: int


def place(chance: Tensor, side: Tensor, there: Tensor, largest: int, size: tuple[int, int], law: Position) -> Patches:
    """Squares of given sides where chance puts them.

    Args:
        chance: (B, N, 2), even in [0, 1): for the row and for the column.
        side: int64, (B, N), in pixels; cut to the image's shorter side.
        there: bool, (B, N).
        largest: no side is longer.
        size: height and width of the images.
        law: "uniform": anywhere; "gaussian": round the middle, standard deviation a quarter of the image
            (Zhang et al. 2017, "Real-Time User-Guided Image Colorization with Learned Deep Priors", 3.1).
    """
    side = side.clamp(max=min(size))
    if law == "gaussian":
        chance = 0.5 + 0.25 * 2**0.5 * torch.erfinv(2 * chance - 1)
    top, left = ((chance[..., axis] * (size[axis] - side + 1)).floor() for axis in (0, 1))
    return moved(Patches(top, left, side, there, min(largest, *size)), 0, 0, size)


def moved(patches: Patches, down: Tensor | int, right: Tensor | int, size: tuple[int, int]) -> Patches:
    """The squares so many pixels away, as far as the image goes.

    Args:
        patches: squares.
        down: rows, (B, N) or one number.
        right: columns, likewise.
        size: height and width of the images.
    """
    free = [length - patches.side for length in size]
    top = (patches.top + down).clamp(min=0).minimum(free[0])
    left = (patches.left + right).clamp(min=0).minimum(free[1])
    return patches._replace(top=top.long(), left=left.long())


def mean_colors(picture: Tensor, patches: Patches) -> Tensor:
    """The mean color of each square.

    Summed as whole numbers, of which 65535 are white: sums of 8-bit pixels are exact, and neither the device nor the
    size of the batch can change the last bit.

    Args:
        image: (B, C, H, W) in [0, 1].
        patches: B x N squares in them.

    Returns:
        float32, (B, N, C).
    """
    pixel, inside = _cells(patches, picture.shape[3])
    batch, channels = picture.shape[:2]
    values = picture.flatten(2).gather(2, pixel.flatten(1)[:, None].expand(-1, channels, -1))
    levels = (values * 65535).round_().to(torch.int32).view(batch, channels, *pixel.shape[1:])
    total = (levels * inside[:, None]).sum(dim=3, dtype=torch.int32)  # no overflow: LARGEST
    return (total / (patches.side.square() * 65535)[:, None]).transpose(1, 2)


def render(colors: Tensor, patches: Patches, size: tuple[int, int]) -> Tensor:
    """The squares as planes. Where two overlap, the later one lies on top, on every device.

    Args:
        colors: (B, N, 3) in [0, 1].
        patches: the B x N squares.
        size: height and width of the planes.

    Returns:
        (B, 4, H, W): red, green, blue, 0 where there is no square, and a mask: 1 where there is one.
    """
    height, width = size
    batch, number = patches.there.shape
    pixel, inside = _cells(patches, width)
    order = torch.arange(1, number + 1, device=pixel.device, dtype=torch.int32)[:, None] * inside
    # The largest number wins whatever order they arrive in, as writing colors at once would not on a GPU.
    top = torch.zeros((batch, height * width), device=pixel.device, dtype=torch.int32)
    top.scatter_reduce_(1, pixel.flatten(1), order.flatten(1), "amax")
    table = F.pad(colors.transpose(1, 2), (1, 0, 0, 1))  # (B, 4, 1 + N): column 0 is no square, row 3 the mask
    table[:, 3, 1:] = 1
    return table.gather(2, top.long()[:, None].expand(-1, 4, -1)).view(batch, 4, height, width)


def _cells(patches: Patches, width: int) -> tuple[Tensor, Tensor]:
    """Which pixels the squares cover.

    Returns:
        int64 and int32, (B, N, largest squared): numbers of pixels, row by row; and 1 for a pixel that the square does
        cover, 0 for one behind its end or of a square that is not there, whose number is 0.
    """
    step = torch.arange(patches.largest, device=patches.top.device)
    within = (step < patches.side[..., None]) & patches.there[..., None]
    inside = within[..., :, None] & within[..., None, :]
    rows = (patches.top[..., None] + step)[..., :, None] * width
    pixel = rows + (patches.left[..., None] + step)[..., None, :]
    return (pixel * inside).flatten(2), inside.flatten(2).to(torch.int32)
