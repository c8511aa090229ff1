"""An ensemble as a function from 8-bit pixels to 8-bit pixels, with a map of how far its members are apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from project.inference.ensemble.average import Ensemble, disagreement
from project.inference.prediction.colorist import Colorist
from project.inference.prediction.hints_file import Hint
from project.inference.prediction.restorer import Restorer

GAIN = 10
"""A disagreement of 1 / 10 of the range is white in the map."""


def doubted(ensemble: Ensemble, x: Tensor) -> Tensor:
    """(B, C, H, W) -> the ensemble's images, and behind them the disagreement twice, times GAIN and as it is: of 8
    bits the one shows small ones, and the other large ones."""
    with torch.inference_mode():
        answers = ensemble.answers(x)
        apart = disagreement(ensemble.pictures(answers, x))
        return torch.cat([ensemble.combine(answers, x), GAIN * apart, apart], dim=1)


def parted(found: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """What comes of :func:`doubted` as uint8, (H, W, C + 2) -> the image (H, W, C), the map (H, W), the confidence.

    The confidence is 1 less the mean disagreement, which is on the scale of pixels in [0, 1].
    """
    fine, coarse = found[..., -2], found[..., -1]
    apart = np.where(fine < 255, fine / (255 * GAIN), coarse / 255)
    return np.ascontiguousarray(found[..., :-2]), fine, 1 - float(apart.mean())


class RestoringTogether(Restorer):
    """A restorer whose answers carry the members' disagreement."""

    def __init__(self, ensemble: Ensemble, data: dict, **options) -> None:
        super().__init__(ensemble, data, **options)
        self.gray_stays_gray, self.keeps_color = not self.keeps_color, True

    def _answer(self, x: Tensor) -> Tensor:
        return doubted(self.model, x)

    def both(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """An image, uint8 (H, W, 1 or 3) -> see :func:`parted`."""
        answer, apart, confidence = parted(self(pixels))
        if pixels.shape[2] == 1 and self.gray_stays_gray and answer.shape[2] == 3:
            answer = np.rint(answer.mean(axis=2, keepdims=True)).astype(np.uint8)
        return answer, apart, confidence


class ColoringTogether(Colorist):
    """A colorist whose answers carry the members' disagreement, as it is at the size that they color at."""

    further = 2

    def _answer(self, x: Tensor) -> Tensor:
        return doubted(self.model, x)

    def both(
        self, pixels: np.ndarray, hints: Sequence[Hint] = (), alpha: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """An image, uint8 (H, W, 1 or 3), hints and (H, W) of transparency -> see :func:`parted`."""
        return parted(self(pixels, hints=hints, alpha=alpha))
