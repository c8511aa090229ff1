"""Runs a model over an image of any size tile by tile: no seams, and memory that does not grow with the height."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from project.data.pairs import Point
from workbench.errors import UserError

ALIGN = 32


class Span(NamedTuple):
    """One tile along one axis: pixels [start, stop), weight float32 (stop - start,); weights of all spans sum to 1."""

    start: int
    stop: int
    weight: Tensor


def spans(length: int, tile: int, overlap: int, align: int = ALIGN) -> list[Span]:
    """Cut an axis of so many pixels into overlapping tiles; the last one ends with the image.

    At each inner edge three eighths of the overlap are discarded, because there the network saw padding in place of
    the image; over the quarter between them the tiles fade into each other. So a network whose receptive field reaches
    no further than ``3 * overlap // 8`` pixels gives exactly its output on the whole image, and one that reaches
    further has no visible step.

    Tiles (0: a single one) have a multiple of ``align`` pixels and start at one: where that is a multiple of the
    product of the network's strides, they sample the same pixels as the whole image.
    """
    size = max(tile // align, 1) * align
    if tile == 0 or length <= size:
        return [Span(0, length, torch.ones(length))]
    stride = (size - overlap) // align * align
    if overlap < 0 or stride <= 0:
        raise ValueError(f"tiles of {size} pixels cannot overlap by {overlap}: at most {size - align}, at least 0")
    last = math.ceil((length - size) / align) * align
    margin = 3 * overlap // 8
    fade = max(1, overlap - 2 * margin)
    windows = []
    total = torch.zeros(length)
    for start in [*range(0, last, stride), last]:
        stop = min(start + size, length)
        pixel = torch.arange(start, stop) + 0.5
        left = ((pixel - start - margin) / fade).clamp(0, 1) if start > 0 else torch.ones(len(pixel))
        right = ((stop - margin - pixel) / fade).clamp(0, 1) if stop < length else torch.ones(len(pixel))
        total[start:stop] += left * right
        windows.append((start, stop, left * right))
    return [Span(start, stop, window / total[start:stop]) for start, stop, window in windows]


@torch.inference_mode()
def tiled_bands(
    function: Callable[[Tensor], Tensor],
    *images: Tensor,
    tile: int = 512,
    overlap: int = 64,
    device: str | torch.device = "cpu",
    align: int = ALIGN,
) -> Iterator[tuple[int, Tensor]]:
    """Process an image from the top down and yield each band of rows as soon as no later tile touches it.

    At any time one row of tiles is held as floats.

    Args:
        function: Takes float32 (1, C, h, w) on the device, returns (1, C', h, w).
        images: (1, C_i, H, W) on the CPU, uint8 or floats in [0, 1]; their channels are concatenated tile by tile.

    Yields:
        The band's first row, and the band: float32, (1, C', rows, W), on the CPU.
    """
    height, width = images[0].shape[-2:]
    rows, columns = spans(height, tile, overlap, align), spans(width, tile, overlap, align)
    carry: Tensor | None = None
    for row, following in zip(rows, [*(row.start for row in rows[1:]), height], strict=True):
        band: Tensor | None = None
        for column in columns:
            parts = [image[:, :, row.start : row.stop, column.start : column.stop].to(device) for image in images]
            x = torch.cat([to_float(part) for part in parts], dim=1)
            output = function(x).float().cpu()
            if output.shape[-2:] != x.shape[-2:]:
                found, given = ("{}x{}".format(*y.shape[-2:]) for y in (output, x))
                raise ValueError(f"the network turned {given} pixels into {found}")
            if band is None:
                band = torch.zeros(1, output.shape[1], row.stop - row.start, width)
                if carry is not None:
                    band[:, :, : carry.shape[2]] = carry
            band[..., column.start : column.stop] += output * (row.weight[:, None] * column.weight)
        finished = following - row.start
        carry = band[:, :, finished:].clone()  # cloned, or it would keep the whole band alive
        yield row.start, band[:, :, :finished]


def to_float(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]; floats as they are."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8, (H, W, C) -> (1, C, H, W)."""
    return torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [kind for kind, found in there.items() if found]
    if name not in ("auto", *usable):
        raise UserError(f"--device {name}: PyTorch finds none on this machine. Available: {', '.join(usable)}.")
    return torch.device(usable[0] if name == "auto" else name)


class TiledInference:
    """A model as a function from 8-bit pixels to 8-bit pixels, tile by tile.

    Args:
        model: In evaluation mode; (B, C, H, W) around [0, 1] in and out. Where it has ``extra_channels``, so many
            channels of its output follow those of the image.
        tile: Height and width of a tile in pixels; 0 for the image as a whole.
        overlap: Pixels that tiles share; UserError where the tile is too small for them.
    """

    def __init__(self, model: nn.Module, *, device: torch.device, tile: int = 512, overlap: int = 64) -> None:
        self.model, self.device = model.to(device), device
        self.tile, self.overlap = tile, overlap
        self.extra = getattr(model, "extra_channels", 0)
        self.align = math.lcm(ALIGN, *(getattr(part, "multiple", 1) for part in model.modules()))
        smallest = (math.ceil(overlap / self.align) + 1) * self.align
        if 0 < tile < smallest:
            raise UserError(f"--tile {tile} is too small for --overlap {overlap}: at least {smallest}.")

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray, alpha: np.ndarray | None = None, hints: Sequence[Point] = ()) -> np.ndarray:
        """uint8 pixels, (H, W, 1) or (H, W, 3) -> the same of the output, with the model's extra channels behind.

        Alpha, uint8 (H, W), is that of an image with transparency; hints lie in pixels of this image. ValueError where
        a hint lies outside, or the output is not finite, not an image, or of another size.
        """
        result: np.ndarray | None = None
        for top, band in self._output(pixels, alpha, hints):
            rows = band[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            if result is None:
                result = np.empty((len(pixels), *rows.shape[1:]), dtype=np.uint8)
            result[top : top + len(rows)] = rows
        return result

    def _output(
        self, pixels: np.ndarray, alpha: np.ndarray | None, hints: Sequence[Point]
    ) -> Iterator[tuple[int, Tensor]]:
        """Bands of the output: first row, and (1, C, rows, W) around [0, 1]."""
        raise NotImplementedError

    def _bands(self, function: Callable[[Tensor], Tensor], *images: Tensor, tile: int) -> Iterator[tuple[int, Tensor]]:
        """:func:`tiled_bands` of finite values, with the options of this object."""
        how = {"overlap": self.overlap, "device": self.device, "align": self.align}
        for top, band in tiled_bands(function, *images, tile=tile, **how):
            if not band.isfinite().all():
                raise ValueError("the network's output is not finite")
            yield top, band

    def _run_model(self, x: Tensor) -> Tensor:
        output = self.model(x).float()
        if output.ndim != 4 or output.shape[1] - self.extra not in (1, 3):
            raise ValueError(f"the network's output has the shape {tuple(output.shape)}, an image has 1 or 3 channels")
        return output
