"""Pixels by position: from one memory-mapped file of decoded images where that fits, else decoded anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.data.cache import Cache, key_of
from project.data.images import BadImage, ImageRecord, Window, decode, resize_shorter, resized, run_parallel
from workbench.console import rank_zero_print
from workbench.errors import UserError

PixelFile = tuple[Path, dict[str, int]]  # where it is, and where in it each digest's image begins


def decode_once(records: Sequence[ImageRecord], cache: Cache, limit_gb: float, **options: Any) -> PixelFile | None:
    """Decode every image into a file, unless it is there, whole; None if it would take more than `limit_gb`.

    It holds each different image, in the order of the digests, its own pixels and its target's; its name is a hash of
    all that: neither a new split nor a moved folder makes it anew. The options are those of `PixelStore`.
    """
    by_digest = dict(sorted({record.digest: record for record in records}.items()))
    store = PixelStore(list(by_digest.values()), **options)
    depths = [store.channels, store.channels + (1 if store.masks else store.channels)]  # without a target and with
    sizes = [store.width(n) * store.height(n) * depths[store.has_target(n)] for n in range(len(store))]
    total = sum(sizes)
    if total > limit_gb * 1e9:
        if limit_gb > 0:
            gb = f"{total / 1e9:.1f} GB, more than --data.decoded_cache_gb {limit_gb:g}"
            rank_zero_print(f"Decoded pixels would take {gb}: images are decoded each time.")
        return None
    path = cache.path(f"pixels-{key_of(list(by_digest), store.channels, store.resize, store.masks, total)}.bin")
    if not path.is_file() or path.stat().st_size != total:
        decoded = run_parallel(store.read, range(len(store)), "Decoding images")
        with cache.writing(path.name) as temporary, temporary.open("wb") as opened:
            for image, target in decoded:
                opened.write(image)
                opened.write(b"" if target is None else target)
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return path, dict(zip(by_digest, starts, strict=False))


class PixelStore:
    """The images of one split as arrays, decoded at each access without a file; a pickled one maps the file again."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        *,
        channels: int,
        resize: int | None = None,
        masks: bool = False,
        file: PixelFile | None = None,
    ) -> None:
        self.records, self.channels, self.resize, self.masks, self.file = records, channels, resize, masks, file
        self.has_targets = bool(records) and not masks and all(record.target_path for record in records)
        self.mapped = file is not None  # pixels come at next to no cost
        self._sizes = [resized(record.width, record.height, resize) for record in records]  # (width, height)
        self._bytes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> np.ndarray:
        """The image, uint8, (H, W, channels): a read-only view; UserError if it is no longer what the index saw."""
        return self._side(position, 0)

    def target(self, position: int) -> np.ndarray:
        """The target of a folder pair, like `store[position]`; of masks (H, W, 1)."""
        return self._side(position, 1)

    def read(self, position: int, window: Window | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """A window of the image and of its target, None if it has none."""
        part = ... if window is None else window
        return self[position][part], self.target(position)[part] if self.has_target(position) else None

    def has_target(self, position: int) -> bool:
        """All images have one or none has, but for extra pairs beside images without targets."""
        return self.records[position].target_path is not None

    def height(self, position: int) -> int:
        return self._sizes[position][1]

    def width(self, position: int) -> int:
        return self._sizes[position][0]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_bytes": None}

    def _side(self, position: int, side: int) -> np.ndarray:
        record, mask = self.records[position], self.masks and side == 1
        channels = 1 if mask else self.channels
        width, height = self._sizes[position]
        if self.mapped:
            path, offsets = self.file
            if self._bytes is None:
                self._bytes = np.memmap(path, mode="r")
            start = offsets[record.digest] + side * width * height * self.channels
            return self._bytes[start : start + width * height * channels].reshape(height, width, channels)
        path = record.target_path if side else record.path
        try:
            pixels = resize_shorter(decode(path, channels, mask), self.resize, mask)
            if pixels.shape[:2] != (height, width):
                raise BadImage("it was of another size")
        except BadImage as error:
            raise UserError(f"{path} has changed since it was checked: {error}. Run again.") from error
        return pixels
