"""Restore an image of any size tile by tile: no seams, and memory that does not grow with the image's height."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

ALIGN = 32


class Patches(Protocol):
    """What can stand for an image's tensor: it makes the part that is asked for.

    Attributes:
        shape: (1, C, H, W).
    """

    shape: tuple[int, int, int, int]

    def __getitem__(self, place: tuple[slice, slice, slice, slice]) -> Tensor:
        """The part of a tensor of that shape, on the CPU."""


class Span(NamedTuple):
    """One tile along one axis.

    Attributes:
        start: First pixel.
        stop: One past the last pixel.
        weight: float32, (stop - start,). At each pixel of the axis the weights of all spans add up to 1.
    """

    start: int
    stop: int
    weight: Tensor


def spans(length: int, tile: int, overlap: int, align: int = ALIGN) -> list[Span]:
    """Cut an axis into overlapping tiles.

    Neighbors share at least ``overlap`` pixels. Three eighths of those are thrown away at each inner edge, because
    there the network saw padding in place of the image; over the quarter between them the tiles fade into each other.
    So a network that looks no further than ``3 * overlap // 8`` pixels answers exactly as on the whole image, and one
    that looks further has no visible step.

    Each tile starts at a multiple of ``align``, so that a network that halves the image samples the same pixels as it
    would on the whole. The last one ends where the image ends, and is at most ``align - 1`` shorter than the others.

    Args:
        length: Pixels along the axis.
        tile: Pixels in a tile; 0 for one that holds everything. Rounded down to a multiple of ``align``.
        overlap: Pixels that neighbors share, at least.
        align: The product of the network's strides, or a multiple of it.

    Raises:
        ValueError: ``overlap`` leaves a tile fewer than ``align`` pixels of its own.
    """
    size = max(tile // align, 1) * align
    if tile == 0 or length <= size:
        return [Span(0, length, torch.ones(length))]
    stride = (size - overlap) // align * align
    if overlap < 0 or stride <= 0:
        raise ValueError(f"tiles of {size} pixels cannot overlap by {overlap}: at most {size - align}, at least 0")
    last = math.ceil((length - size) / align) * align
    starts = [*range(0, last, stride), last]
    windows = []
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        stop = min(start + size, length)
        window = _window(stop - start, overlap, first=start == 0, last=stop == length)
        total[start:stop] += window
        windows.append((start, stop, window))
    return [Span(start, stop, (window / total[start:stop]).float()) for start, stop, window in windows]


def _window(size: int, overlap: int, *, first: bool, last: bool) -> Tensor:
    """Ones, with nothing in the outer margin of an inner edge and a squared sine between; float64, (size,)."""
    margin = 3 * overlap // 8
    fade = overlap - 2 * margin
    ramp = torch.sin(torch.pi / 2 * (torch.arange(fade, dtype=torch.float64) + 0.5) / max(fade, 1)) ** 2
    edge = torch.cat([torch.zeros(margin, dtype=torch.float64), ramp])
    window = torch.ones(size, dtype=torch.float64)
    if not first:
        window[: len(edge)] *= edge
    if not last:
        window[size - len(edge) :] *= edge.flip(0)
    return window


def restore_bands(
    function: Callable[[Tensor], Tensor],
    image: Tensor | Patches,
    *,
    tile: int = 512,
    overlap: int = 64,
    batch: int = 1,
    device: str | torch.device = "cpu",
    align: int = ALIGN,
) -> Iterator[tuple[int, Tensor]]:
    """Restore an image from the top down and hand out each band of rows as soon as no later tile touches it.

    At any time one row of tiles is held as floats; the image itself may stay uint8.

    Args:
        function: Takes float32 (B, C, h, w) in [0, 1] on the device, gives (B, C', h, w).
        image: (1, C, H, W) on the CPU: uint8, or floats in [0, 1]; or what makes the parts of such a tensor.
        tile: Height and width of a tile in pixels; 0 restores the image in one piece.
        overlap: Pixels that neighboring tiles share, at least. See :func:`spans`.
        batch: Tiles that go through the function at once.
        device: Where the function works.
        align: Tiles start at multiples of this.

    Yields:
        The band's first row, and the band: float32, (1, C', rows, W), on the CPU. Bands follow each other without gaps.

    Raises:
        ValueError: The overlap does not fit the tile, or the function changes height or width.
    """
    height, width = image.shape[-2:]
    rows = spans(height, tile, overlap, align)
    columns = _batches(spans(width, tile, overlap, align), batch)
    carry: Tensor | None = None
    for number, row in enumerate(rows):
        band: Tensor | None = None
        for chunk in columns:
            answers = _answer(function, image, row, chunk, device)
            if band is None:
                band = torch.zeros(1, answers.shape[1], row.stop - row.start, width)
                if carry is not None:
                    band[:, :, : carry.shape[2]] = carry
            for column, answer in zip(chunk, answers, strict=True):
                band[0, :, :, column.start : column.stop] += answer * (row.weight[:, None] * column.weight)
        following = rows[number + 1].start if number + 1 < len(rows) else height
        finished = following - row.start
        # Cloned, or the little that is carried would keep the whole band alive.
        carry = band[:, :, finished:].clone()
        yield row.start, band[:, :, :finished]


def restore_tiled(
    function: Callable[[Tensor], Tensor],
    image: Tensor,
    tile: int = 512,
    overlap: int = 64,
    batch: int = 1,
    device: str | torch.device = "cpu",
    align: int = ALIGN,
) -> Tensor:
    """Restore an image tile by tile: :func:`restore_bands`, put together.

    Returns:
        float32, (1, C', H, W), on the CPU.
    """
    bands = restore_bands(function, image, tile=tile, overlap=overlap, batch=batch, device=device, align=align)
    return torch.cat([band for _, band in bands], dim=2)


def _batches(columns: list[Span], batch: int) -> list[list[Span]]:
    """Neighbors of the same width together, at most ``batch`` of them."""
    chunks: list[list[Span]] = []
    for column in columns:
        width = column.stop - column.start
        if chunks and len(chunks[-1]) < batch and chunks[-1][0].stop - chunks[-1][0].start == width:
            chunks[-1].append(column)
        else:
            chunks.append([column])
    return chunks


@torch.inference_mode()
def _answer(
    function: Callable, image: Tensor | Patches, row: Span, chunk: list[Span], device: str | torch.device
) -> Tensor:
    """The function's answer to tiles of one row: float32, (B, C', h, w), on the CPU."""
    patch = torch.cat([image[:, :, row.start : row.stop, column.start : column.stop] for column in chunk]).to(device)
    patch = patch.float() / 255 if patch.dtype == torch.uint8 else patch.float()
    answer = function(patch).float().cpu()
    if answer.shape[-2:] != patch.shape[-2:]:
        got, wanted = tuple(answer.shape[-2:]), tuple(patch.shape[-2:])
        raise ValueError(f"the network turned {wanted[0]}x{wanted[1]} pixels into {got[0]}x{got[1]}")
    return answer
