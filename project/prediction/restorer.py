"""A model as a function from 8-bit pixels to 8-bit pixels, whatever the size and the number of channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from project.errors import UserError
from project.prediction.tiles import ALIGN, restore_bands

LUMA = (0.299, 0.587, 0.114)
"""Grey from colour, ITU-R BT.601, as in training."""

PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}


class Restorer:
    """Restores pictures with a trained model.

    A grey picture goes through a colour network as three equal channels and comes back grey; a network that was taught
    with a folder of targets keeps its colours (it may be there to colour). A colour picture goes into a grey network as
    its luma.

    Args:
        model: In evaluation mode; takes and gives (B, C, H, W) around [0, 1].
        data: The data part of the run's configuration, from the checkpoint.
        device: Where to compute.
        tile: Height and width of a tile in pixels; 0 for the picture in one piece.
        overlap: Pixels that tiles share.
        batch: Tiles at once.
        precision: "32", "bf16" or "16".
        sigma: The noise's standard deviation on the scale of 0 to 255, for a network with a noise map.

    Raises:
        UserError: ``sigma`` is missing or unwanted, the network wants channels that a picture does not have, or
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
        self.model = model.to(device)
        self.device = device
        self.tile, self.overlap, self.batch = tile, overlap, batch
        self.precision = PRECISIONS[precision]
        self.align = math.lcm(ALIGN, *(getattr(part, "multiple", 1) for part in model.modules()))
        self.smallest_tile = (math.ceil(overlap / self.align) + 1) * self.align
        if 0 < tile < self.smallest_tile:
            raise UserError(
                f"--tile {tile} is too small for --overlap {overlap}: at least {self.smallest_tile}, or less overlap."
            )
        self.keeps_colour = bool(data.get("target_root"))
        self.channels, self.sigma = _channels(model, data, sigma)

    def __call__(self, pixels: np.ndarray, progress: Callable[[float], None] = lambda share: None) -> np.ndarray:
        """Restore a picture. Where the memory does not suffice, it goes on with tiles of half the size.

        Args:
            pixels: uint8, (H, W, 1) or (H, W, 3).
            progress: Told the share that is done, in [0, 1].

        Returns:
            uint8, (H, W, 1) or (H, W, 3).

        Raises:
            ValueError: The answer is not finite, is no picture, or has another size.
        """
        while True:
            try:
                return self._restore(pixels, progress)
            except (RuntimeError, MemoryError) as error:
                smaller = (self.tile or max(pixels.shape[:2])) // 2
                if not _is_out_of_memory(error) or smaller < self.smallest_tile:
                    raise
                self.tile = smaller
            if self.device.type == "cuda":  # outside the handler, whose traceback holds the tensors
                torch.cuda.empty_cache()

    def _restore(self, pixels: np.ndarray, progress: Callable[[float], None]) -> np.ndarray:
        height, width, channels = pixels.shape
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        answer: np.ndarray | None = None
        bands = restore_bands(
            lambda x: self._network(x, channels),
            image,
            tile=self.tile,
            overlap=self.overlap,
            batch=self.batch,
            device=self.device,
            align=self.align,
        )
        for top, band in bands:
            if not band.isfinite().all():
                raise ValueError("the network's answer is not finite (try --precision 32)")
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
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            answer = self.model(x)
        if answer.shape[1] not in (1, 3):
            raise ValueError(f"the network's answer has {answer.shape[1]} channels, a picture has 1 or 3")
        if channels == 1 and self.channels == 3 and not self.keeps_colour:
            answer = answer.float().mean(dim=1, keepdim=True)
        return answer


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one.

    Raises:
        UserError: The device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_there in there.items() if is_there)
    if not there[name]:
        usable = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise UserError(f"--device {name}: PyTorch finds none on this machine. There is: {usable}.")
    return torch.device(name)


def _channels(model: nn.Module, data: dict[str, Any], sigma: float | None) -> tuple[int, float | None]:
    """How many channels of a picture the network takes, and the noise map's value."""
    normalize = next((part.normalize_input for part in model.modules() if hasattr(part, "normalize_input")), None)
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
        raise UserError(f"The network takes {wanted} input channels, and a picture alone cannot give it more than 3.")
    return channels, sigma


def _is_out_of_memory(error: Exception) -> bool:
    words = str(error).lower()
    known = ("out of memory", "can't allocate memory", "not enough memory")  # GPUs; the CPU on Unix; on Windows
    return isinstance(error, MemoryError) or any(phrase in words for phrase in known)
