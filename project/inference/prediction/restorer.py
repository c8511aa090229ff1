"""A model as a function from 8-bit pixels to 8-bit pixels, whatever the size and the number of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from project.color import LUMA
from project.data.sources import partners
from project.inference.prediction.tiled import TiledModel
from project.networks.normalize import input_normalization
from workbench.errors import UserError


class Restorer(TiledModel):
    """Restores images with a trained model.

    A gray image goes through a color network as three equal channels and comes back gray; a network that was taught
    with a folder of targets keeps its colors (it may be there to color). A color image goes into a gray network as
    its luma.

    Args:
        model: In evaluation mode; takes and gives (B, C, H, W) around [0, 1].
        data: The data part of the run's configuration, from the checkpoint.
        device: Where to compute.
        tile: Height and width of a tile in pixels; 0 for the image in one piece.
        overlap: Pixels that tiles share.
        batch: Tiles at once.
        precision: "32", "bf16" or "16".
        sigma: The noise's standard deviation on the scale of 0 to 255, for a network with a noise map.

    Raises:
        UserError: ``sigma`` is missing or unwanted, the network wants channels that an image does not have, or
            the tile is too small for the overlap.
    """

    def __init__(
        self,
        model: nn.Module,
        data: dict[str, Any],
        *,
        device: torch.device,
        tile: int = 512,
        overlap: int = 64,
        batch: int = 1,
        precision: str = "32",
        sigma: float | None = None,
    ) -> None:
        super().__init__(model, device=device, tile=tile, overlap=overlap, batch=batch, precision=precision)
        self.keeps_color = partners(data.get("source", "demo"), data.get("root"), data.get("target_root")) is not None
        self.channels, self.sigma = _channels(model, data, sigma)

    def __call__(self, pixels: np.ndarray, progress: Callable[[float], None] = lambda share: None) -> np.ndarray:
        """Restore an image. Where the memory does not suffice, it goes on with tiles of half the size.

        Args:
            pixels: uint8, (H, W, 1) or (H, W, 3).
            progress: Told the share that is done, in [0, 1].

        Returns:
            uint8, (H, W, 1) or (H, W, 3).

        Raises:
            ValueError: The answer is not finite, is no image, or has another size.
        """
        return self._patiently(lambda: self._restore(pixels, progress), max(pixels.shape[:2]))

    def _restore(self, pixels: np.ndarray, progress: Callable[[float], None]) -> np.ndarray:
        height, width, channels = pixels.shape
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        answer: np.ndarray | None = None
        for top, band in self._bands(lambda x: self._network(x, channels), image, self.tile):
            rows = band[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            if answer is None:
                answer = np.empty((height, width, rows.shape[2]), dtype=np.uint8)
            answer[top : top + len(rows)] = rows
            progress((top + len(rows)) / height)
        return answer

    def _network(self, x: Tensor, channels: int) -> Tensor:
        """(B, 1 or 3, h, w) -> (B, 1 or 3, h, w), both in [0, 1] but for what the network overshoots."""
        if channels < self.channels:
            x = x.expand(-1, 3, -1, -1)
        elif channels > self.channels:
            x = (x * x.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
        if self.sigma is not None:
            x = torch.cat([x, x.new_full((len(x), 1, *x.shape[2:]), self.sigma / 255)], dim=1)
        answer = self._answer(x)
        if channels == 1 and self.channels == 3 and not self.keeps_color:
            answer = answer.float().mean(dim=1, keepdim=True)
        return answer


def _channels(model: nn.Module, data: dict[str, Any], sigma: float | None) -> tuple[int, float | None]:
    """How many channels of an image the network takes, and the noise map's value."""
    normalize = input_normalization(model)
    wanted = normalize.mean.shape[1] if normalize is not None else data.get("channels", 3)
    pairs = data.get("pairs")
    has_map = isinstance(pairs, dict) and bool((pairs.get("init_args") or {}).get("noise_map"))
    if has_map and sigma is None:
        raise UserError(
            "This network must be told how strong the noise is (it has a noise map).\n"
            "Add --sigma VALUE, the noise's standard deviation on the scale of 0 to 255, such as --sigma 25."
        )
    if sigma is not None and not has_map:
        raise UserError("--sigma is for networks with a noise map; this one finds out by itself. Leave it out.")
    channels = wanted - 1 if has_map else wanted
    if channels not in (1, 3):
        raise UserError(f"The network takes {wanted} input channels, and an image alone cannot give it more than 3.")
    return channels, sigma
