"""A model that is run over images tile by tile, with smaller tiles where the memory does not suffice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from project.inference.prediction.tiles import ALIGN, Patches, restore_bands
from workbench.errors import UserError

PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}

Result = TypeVar("Result")


class TiledModel:
    """What restoring and coloring share.

    Args:
        model: In evaluation mode; takes and gives (B, C, H, W) around [0, 1].
        device: Where to compute.
        tile: Height and width of a tile in pixels; 0 for the image in one piece.
        overlap: Pixels that tiles share.
        batch: Tiles at once.
        precision: "32", "bf16" or "16".

    Raises:
        UserError: The tile is too small for the overlap.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device,
        tile: int = 512,
        overlap: int = 64,
        batch: int = 1,
        precision: str = "32",
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

    def _patiently(self, work: Callable[[], Result], longest: int) -> Result:
        """Do the work; where the memory does not suffice, again with tiles of half the size.

        Args:
            work: What uses ``self.tile``.
            longest: Pixels of the image's longer side, from which tiles start where there were none.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                smaller = (self.tile or longest) // 2
                if not _is_out_of_memory(error) or smaller < self.smallest_tile:
                    raise
                self.tile = smaller
            if self.device.type == "cuda":  # outside the handler, whose traceback holds the tensors
                torch.cuda.empty_cache()

    def _bands(
        self, function: Callable[[Tensor], Tensor], image: Tensor | Patches, tile: int
    ) -> Iterator[tuple[int, Tensor]]:
        """The function's answer from the top down, as :func:`restore_bands` gives it.

        Raises:
            ValueError: It is not finite, or has another size.
        """
        bands = restore_bands(
            function, image, tile=tile, overlap=self.overlap, batch=self.batch, device=self.device, align=self.align
        )
        for top, band in bands:
            if not band.isfinite().all():
                raise ValueError("the network's answer is not finite (try --precision 32)")
            yield top, band

    def _answer(self, x: Tensor) -> Tensor:
        """The model's answer in the precision asked for.

        Raises:
            ValueError: It is no image.
        """
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            answer = self.model(x)
        if answer.shape[1] not in (1, 3):
            raise ValueError(f"the network's answer has {answer.shape[1]} channels, an image has 1 or 3")
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


def _is_out_of_memory(error: Exception) -> bool:
    words = str(error).lower()
    known = ("out of memory", "can't allocate memory", "not enough memory")  # GPUs; the CPU on Unix; on Windows
    return isinstance(error, MemoryError) or any(phrase in words for phrase in known)
