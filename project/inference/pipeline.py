"""Restoration and colorization of one image: 8-bit pixels in and out, whatever the size and the number of channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from project.color import gray, rgb_to_lab
from project.data.images import resize_shorter
from project.data.pairs import Coloring, PairMaker, Point
from project.data.sources import partners
from project.inference.common import input_channels
from project.inference.hints import HintRequest
from project.inference.image_files import on_white
from project.inference.tiles import TiledInference, to_float, to_tensor
from project.inference.upsample_color import LazyResize, clip_to_gamut, multiply_lines, split_ink
from workbench.checkpoint import Checkpoint, build
from workbench.errors import UserError
from workbench.main import load

SIDES = {"drawings": 96, "CIFAR10": 32, "CIFAR100": 32}  # of the images of a source, where they are all of one size
DEFAULT_SIZE = 256  # for a network trained on whole images of any size
MAX_ENLARGEMENT = 4  # an image is not enlarged beyond so many times the working size along its longer side
PIXELS_AT_ONCE = 2**20  # of the full image, while it gets its colors: floats of all of it take too much memory


def make_pipeline(
    model: nn.Module, checkpoint: Checkpoint, request: HintRequest, *, sigma: float | None = None, **tiling: Any
) -> RestorationPipeline | ColorizationPipeline:
    """The pipeline that suits a checkpoint's task, of its model or of several together."""
    data, pairs = checkpoint.config.get("data") or {}, coloring_of(checkpoint)
    request.check(pairs and pairs.hints)
    noise_map = bool(((data.get("pairs") or {}).get("init_args") or {}).get("noise_map"))
    if noise_map != (sigma is not None):
        raise UserError(
            "--sigma, the noise's standard deviation on the scale of 0 to 255, is for networks with a noise map: "
            f"this one {'has' if noise_map else 'does not have'} one."
        )
    if pairs is None:
        return RestorationPipeline(model, data, sigma=sigma, **tiling)
    size = working_size(data) if request.size is None else request.size
    print(f"Colors are found at {f'{size} pixels along the shorter side' if size else 'full size'}; see --size.")
    return ColorizationPipeline(model, pairs, size, **tiling)


def coloring_of(checkpoint: Checkpoint) -> Coloring | None:
    """The pair maker of a network that colors; None for other networks."""
    data = checkpoint.config.get("data") or {}
    described = data.get("pairs")
    try:
        kind = load(described["class_path"])
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return None  # of a restorer, whose pair maker need not exist any more
    if not (isinstance(kind, type) and issubclass(kind, Coloring)):
        return None
    pairs = build(checkpoint, PairMaker, described)
    return None if pairs.uses_target == "never" and _has_targets(data) else pairs


def _has_targets(data: dict[str, Any]) -> bool:
    return partners(data.get("source", "demo"), data.get("root"), data.get("target_root")) is not None


def working_size(data: dict[str, Any]) -> int:
    """Pixels of the shorter side to color at: as in the training."""
    known = SIDES.get(data.get("source")) if data.get("root") is None else None
    return data.get("resize") or known or data.get("crop") or DEFAULT_SIZE


class RestorationPipeline(TiledInference):
    """Restores images with a trained model.

    A gray image goes through a color network as three equal channels and comes back gray; a network that was trained
    with a folder of targets keeps its colors (it may be there to color). A color image goes into a gray network as
    its luma.

    ``data`` are the data settings of its training; ``sigma``, 0 to 255, is for a network with a noise map; the others
    are those of :class:`TiledInference`.
    """

    verb = "restored"

    def __init__(self, model: nn.Module, data: dict[str, Any], *, sigma: float | None = None, **tiling: Any) -> None:
        super().__init__(model, **tiling)
        self.channels = input_channels(model, data) - (sigma is not None)
        self.sigma, self.keeps_color = sigma, _has_targets(data)
        if self.channels not in (1, 3):
            raise UserError(f"The network takes {self.channels} input channels, and an image alone has 1 or 3.")

    def _output(
        self, pixels: np.ndarray, alpha: np.ndarray | None, hints: Sequence[Point]
    ) -> Iterator[tuple[int, Tensor]]:
        return self._bands(lambda x: self._restore(x, pixels.shape[2]), to_tensor(pixels), tile=self.tile)

    def _restore(self, x: Tensor, channels: int) -> Tensor:
        if channels < self.channels:
            x = x.expand(-1, 3, -1, -1)
        elif channels > self.channels:
            x = gray(x)
        if self.sigma is not None:
            x = torch.cat([x, x.new_full((len(x), 1, *x.shape[2:]), self.sigma / 255)], dim=1)
        output = self._run_model(x)
        if channels == 1 and self.channels == 3 and not self.keeps_color:
            image, extra = output.tensor_split([output.shape[1] - self.extra], dim=1)
            output = torch.cat([image.mean(dim=1, keepdim=True), extra], dim=1)
        return output


class ColorizationPipeline(TiledInference):
    """Colors gray photographs and line art with a trained model.

    A network that colors has to see the whole scene at the scale that it was trained at. So the image is brought to
    that size, colored there in one piece (in tiles where it has more pixels than a tile), and the colors are upsampled
    to the full image. A photograph keeps its own lightness (CIELAB's L) at every pixel. Line art keeps its own lines,
    over the paint (see ``split_ink``); where nothing was resized, it is the network's output as it is. Of an image
    in color, the gray is colored.

    ``size`` are the pixels of the shorter side while coloring, 0 for each image's own.
    """

    verb = "colored"

    def __init__(self, model: nn.Module, pairs: Coloring, size: int, **tiling: Any) -> None:
        super().__init__(model, **tiling)
        self.pairs, self.size = pairs, size

    def _output(
        self, pixels: np.ndarray, alpha: np.ndarray | None, hints: Sequence[Point]
    ) -> Iterator[tuple[int, Tensor]]:
        small = to_tensor(resize_shorter(on_white(pixels, alpha), working_side(*pixels.shape[:2], self.size)))
        full, channels = to_tensor(pixels), pixels.shape[2]
        planes = self._hint_planes(hints, full.shape[2:], small.shape[2:]).expand(-1, -1, *small.shape[2:])

        def color(x: Tensor) -> Tensor:
            return self._run_model(torch.cat([self.pairs.condition_of(x[:, :channels]), x[:, channels:]], dim=1))

        tile = 0 if small.shape[2] * small.shape[3] <= self.tile**2 else self.tile
        bands = self._bands(color, small, planes, tile=tile)
        if small.shape[2:] == full.shape[2:] and not self.pairs.keeps_lightness:
            return bands
        return self._upsampled(torch.cat([band for _, band in bands], dim=2).to(self.device), small, full)

    def _hint_planes(self, hints: Sequence[Point], size: tuple[int, int], small: tuple[int, int]) -> Tensor:
        """The hints' planes of the small image: (1, K, h, w), or (1, K, 1, 1) where they are the same everywhere."""
        trained = self.pairs.hints
        if not hints:
            return torch.zeros(1, trained.channels, 1, 1)
        if trained.slots is not None:
            return trained.from_points(1, 1, hints)
        (height, width), (small_height, small_width) = size, small
        points = []
        for number, hint in enumerate(hints, 1):
            if not (0 <= hint.x < width and 0 <= hint.y < height):
                raise ValueError(f"hint {number} at {hint.x:g}, {hint.y:g} is outside the {width} x {height} pixels")
            # The middle of a pixel lies within a pixel at any scale.
            y, x = (int(hint.y) + 0.5) * small_height // height, (int(hint.x) + 0.5) * small_width // width
            points.append(hint._replace(x=x, y=y))
        return trained.from_points(small_height, small_width, points)

    def _upsampled(self, output: Tensor, small: Tensor, full: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The output on the small image, (1, 3, h, w), at full size: bands of RGB."""
        height, width = full.shape[2:]
        colors, extra = output.tensor_split([3], dim=1)
        if self.pairs.keeps_lightness:
            layers = (rgb_to_lab(colors.clamp(0, 1))[:, 1:],)
        else:
            layers = split_ink(colors.clamp(0, 1), gray(to_float(small.to(self.device))))
        resized = LazyResize(torch.cat([*layers, extra], dim=1), height, width)
        step = max(1, PIXELS_AT_ONCE // width)
        for top in range(0, height, step):
            part = to_float(full[:, :, top : top + step].to(self.device))
            found = resized.rows(top, top + part.shape[2])
            if self.pairs.keeps_lightness:
                lightness = rgb_to_lab(part.expand(-1, 3, -1, -1))[:, :1]
                rgb, more = clip_to_gamut(lightness, found[:, :2]), found[:, 2:]
            else:
                rgb, more = multiply_lines(found[:, :3], found[:, 3:4], gray(part)), found[:, 4:]
            yield top, torch.cat([rgb, more], dim=1)


def working_side(height: int, width: int, size: int) -> int:
    """Pixels of the shorter side of an image while it is colored; ``size`` is the one asked for, 0 for its own.

    A long strip is enlarged only until its longer side has ``MAX_ENLARGEMENT`` times that size.
    """
    shorter, longer = sorted((height, width))
    return min(size, max(shorter, MAX_ENLARGEMENT * size * shorter // longer)) if size else shorter
