"""A model that colors, as a function from 8-bit pixels to 8-bit pixels, whatever the size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from project.color import gray, rgb_to_lab
from project.data.images import resize_shorter
from project.data.pairs import Coloring, Point
from project.inference.prediction.carry import Stretched, inked, paint_and_paper, with_lightness
from project.inference.prediction.hints_file import Hint
from project.inference.prediction.tiled import TiledModel

LONGEST = 4
"""An image is not enlarged beyond so many times the working size along its longer side."""

PIXELS_AT_ONCE = 2**20
"""Of the full image, while it gets its colors: floats of all of it would take a dozen times its own memory."""


class Colorist(TiledModel):
    """Colors gray photographs and line art with a trained model.

    A network that colors has to see the whole figure at the scale that it was trained at. So the image is brought to
    that size, colored there in one piece (in tiles where it has more pixels than a tile), and the colors are carried
    over to the full image. Of a gray photograph, every pixel keeps its own lightness (CIELAB's L). Line art keeps its
    own lines, over the paint (see `carry.paint_and_paper`); where nothing was resized, it is
    the network's answer as it is. Of an image in color, the gray is colored.

    Args:
        model: In evaluation mode; takes (B, K, H, W) as its pair maker makes it, gives RGB around [0, 1].
        pairs: The pair maker of its training.
        size: Pixels of the shorter side while coloring; 0 for each image's own.
        device: Where to compute.
        tile: Height and width of a tile in pixels; 0 for the image in one piece.
        overlap: Pixels that tiles share.
        batch: Tiles at once.
        precision: "32", "bf16" or "16".

    Raises:
        UserError: The tile is too small for the overlap.
    """

    further = 0
    """Channels that a subclass's ``_answer`` has behind the colors."""

    def __init__(
        self,
        model: nn.Module,
        pairs: Coloring,
        size: int,
        *,
        device: torch.device,
        tile: int = 512,
        overlap: int = 64,
        batch: int = 1,
        precision: str = "32",
    ) -> None:
        super().__init__(model, device=device, tile=tile, overlap=overlap, batch=batch, precision=precision)
        self.pairs = pairs
        self.size = size

    def __call__(
        self,
        pixels: np.ndarray,
        progress: Callable[[float], None] = lambda share: None,
        hints: Sequence[Hint] = (),
        alpha: np.ndarray | None = None,
    ) -> np.ndarray:
        """Color an image. Where the memory does not suffice, it goes on with tiles, or with smaller ones.

        Args:
            pixels: uint8, (H, W, 1) or (H, W, 3).
            progress: Told the share that is done, in [0, 1].
            hints: In pixels of this image; of a palette only the colors count.
            alpha: uint8, (H, W): the network then sees the image on white.

        Returns:
            uint8, (H, W, 3).

        Raises:
            ValueError: The answer is not finite, has no three channels, or has another size.
        """
        return self._patiently(lambda: self._color(pixels, progress, hints, alpha), max(pixels.shape[:2]))

    @torch.inference_mode()
    def _color(
        self,
        pixels: np.ndarray,
        progress: Callable[[float], None],
        hints: Sequence[Hint],
        alpha: np.ndarray | None,
    ) -> np.ndarray:
        height, width = pixels.shape[:2]
        small = _tensor(resize_shorter(on_white(pixels, alpha), working_side(height, width, self.size)))
        full = _tensor(pixels)
        bands = self._ask(small, self._planes(hints, (height, width), small.shape[2:]))
        if small.shape[2:] == full.shape[2:]:
            rows = self._as_they_come(bands, full)
        else:
            rows = self._carried(torch.cat([band for _, band in bands], dim=2).to(self.device), small, full)
        answer: np.ndarray | None = None
        for top, part in rows:
            done = part[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            if answer is None:
                answer = np.empty((height, width, done.shape[2]), dtype=np.uint8)
            answer[top : top + len(done)] = done
            progress((top + len(done)) / height)
        return answer

    def _planes(self, hints: Sequence[Hint], size: tuple[int, int], small: tuple[int, int]) -> Tensor:
        """The hints' planes of the small image: (1, K, h, w), or (1, K, 1, 1) where they are the same everywhere."""
        taken = self.pairs.hints
        if not hints:
            return torch.zeros(1, taken.channels, 1, 1)
        if taken.slots is not None:
            return taken.from_points(1, 1, [Point(0, 0, _unit(hint)) for hint in hints])
        points = [
            # The middle of a pixel lies within a pixel at any scale.
            Point((int(hint.x) + 0.5) * small[1] // size[1], (int(hint.y) + 0.5) * small[0] // size[0], _unit(hint))
            for hint in hints
        ]
        return taken.from_points(*small, points)

    def _ask(self, picture: Tensor, planes: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The network's answer to an image, uint8 (1, C, h, w), and hints: bands from the top down.

        They are RGB; further channels go along to the full size as they are.
        """
        height, width = picture.shape[2:]
        channels = picture.shape[1]
        tile = 0 if height * width <= self.tile**2 else self.tile
        return self._bands(lambda x: self._network(x, channels), _Input(picture, planes), tile)

    def _network(self, x: Tensor, channels: int) -> Tensor:
        """(B, C + K, h, w), the image and the planes -> (B, 3 and further channels, h, w)."""
        answer = self._answer(torch.cat([self.pairs.condition_of(x[:, :channels]), x[:, channels:]], dim=1))
        if answer.shape[1] != 3 + self.further:
            raise ValueError("the network's answer is gray")
        return answer

    def _as_they_come(self, bands: Iterator[tuple[int, Tensor]], full: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The answer at the image's own size, a gray photograph's with the photograph's own lightness."""
        for top, band in bands:
            if self.pairs.keeps_lightness:
                part = self._part(full, top, top + band.shape[2])
                colors, more = band[:, :3].to(self.device), band[:, 3:].to(self.device)
                yield top, torch.cat([with_lightness(_lightness(part), _ab(colors)), more], dim=1)
            else:
                yield top, band

    def _carried(self, answer: Tensor, small: Tensor, full: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The answer to the small image, (1, 3, h, w), carried over to the full one: bands of RGB."""
        height, width = full.shape[2:]
        colors, more = answer[:, :3], answer[:, 3:]
        if self.pairs.keeps_lightness:
            layers = (_ab(colors),)
        else:
            layers = paint_and_paper(colors.clamp(0, 1), gray(self._part(small, 0, small.shape[2])))
        stretched = Stretched(torch.cat([*layers, more], dim=1), height, width)
        kept = stretched.picture.shape[1] - more.shape[1]
        step = max(1, PIXELS_AT_ONCE // width)
        for top in range(0, height, step):
            part = self._part(full, top, min(top + step, height))
            found, beside = stretched.rows(top, top + part.shape[2]).tensor_split([kept], dim=1)
            if self.pairs.keeps_lightness:
                done = with_lightness(_lightness(part), found)
            else:
                done = inked(found[:, :3], found[:, 3:], gray(part))
            yield top, torch.cat([done, beside], dim=1)

    def _part(self, picture: Tensor, top: int, stop: int) -> Tensor:
        return picture[:, :, top:stop].to(self.device).float() / 255


def working_side(height: int, width: int, size: int) -> int:
    """Pixels of the shorter side of an image while it is colored.

    Args:
        height: Of the image, in pixels.
        width: Likewise.
        size: The shorter side asked for, 0 for the image's own. A long strip is not enlarged until its shorter side
            has as many, but until its longer side has `LONGEST` times as many.
    """
    shorter, longer = sorted((height, width))
    if size == 0 or size <= shorter:
        return size or shorter
    return max(shorter, min(size, LONGEST * size * shorter // longer))


class _Input:
    """An image's pixels and its hints' planes, as floats only where a tile asks for them."""

    def __init__(self, picture: Tensor, planes: Tensor) -> None:
        self.picture = picture
        self.planes = planes.expand(-1, -1, *picture.shape[2:])
        self.shape = (1, picture.shape[1] + planes.shape[1], *picture.shape[2:])

    def __getitem__(self, place: tuple[slice, slice, slice, slice]) -> Tensor:
        return torch.cat([self.picture[place].float() / 255, self.planes[place]], dim=1)


def on_white(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """What the network was shown of transparent images in training: uint8, (H, W, C), and (H, W) -> (H, W, C)."""
    if alpha is None:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    white = Image.new(image.mode, image.size, "white")
    return np.asarray(Image.composite(image, white, Image.fromarray(alpha))).reshape(pixels.shape)


def _tensor(pixels: np.ndarray) -> Tensor:
    """uint8, (H, W, C) -> (1, C, H, W)."""
    return torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]


def _lightness(picture: Tensor) -> Tensor:
    return rgb_to_lab(picture.expand(-1, 3, -1, -1))[:, :1]


def _ab(rgb: Tensor) -> Tensor:
    return rgb_to_lab(rgb.clamp(0, 1))[:, 1:]


def _unit(hint: Hint) -> tuple[float, float, float]:
    red, green, blue = hint.color
    return red / 255, green / 255, blue / 255
