"""Pixels by position: from one memory-mapped file of decoded images where that fits, else decoded anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from project.data.cache import Cache, key_of
from project.data.images import BadImage, ImageRecord, Window, decode, resize_shorter, resized, run_parallel
from workbench.console import rank_zero_print
from workbench.errors import UserError


class PixelFile(NamedTuple):
    """One file of all splits' pixels: of each different image, in the order of the digests, its own and its target's.

    Its name is a hash of all of that: neither a new split nor a moved folder makes it anew.
    """

    path: Path
    bytes: int
    offsets: dict[str, int]


def pixel_file(
    records: Sequence[ImageRecord], cache: Cache, *, channels: int, resize: int | None = None, masks: bool = False
) -> PixelFile:
    """Plan the file of all these images; `write_pixels` makes it."""
    offsets, total = {}, 0
    for digest, record in sorted({record.digest: record for record in records}.items()):
        width, height = resized(record.width, record.height, resize)
        offsets[digest] = total
        total += width * height * (channels + (0 if record.target_path is None else 1 if masks else channels))
    key = key_of(list(offsets), channels, resize, masks, total)
    return PixelFile(cache.path(f"pixels-{key}.bin"), total, offsets)


def write_pixels(
    file: PixelFile, records: Sequence[ImageRecord], cache: Cache, limit_gb: float, workers: int = 0, **options
) -> bool:
    """Decode every image into the file, unless it is there, whole; False if it would take more than `limit_gb`."""
    if file.bytes > limit_gb * 1e9:
        if limit_gb > 0:
            rank_zero_print(
                f"Decoded pixels would take {file.bytes / 1e9:.1f} GB, more than --data.decoded_cache_gb {limit_gb:g}: "
                "images are decoded each time."
            )
        return False
    if not file.path.is_file() or file.path.stat().st_size != file.bytes:
        by_digest = {record.digest: record for record in records}
        store = PixelStore([by_digest[digest] for digest in file.offsets], **options)
        decoded = run_parallel(store.read, range(len(store)), workers=workers, title="Decoding images")
        with cache.writing(file.path.name) as temporary, temporary.open("wb") as opened:
            for image, target in decoded:
                opened.write(image)
                opened.write(b"" if target is None else target)
    return True


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
        self.channels, self.resize, self.masks = channels, resize, masks
        self.paths = [(record.path, record.target_path) for record in records]
        self.has_targets = bool(records) and not masks and all(target for _, target in self.paths)
        self.mapped = file is not None  # pixels come at next to no cost
        self._path = file and file.path
        self._offsets = [file.offsets[record.digest] for record in records] if file else []
        self._sizes = [resized(record.width, record.height, resize) for record in records]
        self._bytes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> np.ndarray:
        """The image, uint8, (H, W, channels): a read-only view; UserError if it is no longer what the index saw."""
        return self._side(position, 0)

    def target(self, position: int) -> np.ndarray:
        """The target of a folder pair, like `store[position]`; of masks (H, W, 1)."""
        return self._side(position, 1)

    def read(self, position: int, window: Window | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """A window of the image and of its target, None if it has none."""
        return self._side(position, 0, window), self._side(position, 1, window) if self.has_target(position) else None

    def has_target(self, position: int) -> bool:
        """All images have one or none has, but for extra pairs beside images without targets."""
        return self.paths[position][1] is not None

    def height(self, position: int) -> int:
        """Rows, after resizing."""
        return self._sizes[position][1]

    def width(self, position: int) -> int:
        """Columns, after resizing."""
        return self._sizes[position][0]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_bytes": None}

    def _side(self, position: int, side: int, window: Window | None = None) -> np.ndarray:
        mask = self.masks and side == 1
        channels = 1 if mask else self.channels
        width, height = size = self._sizes[position]
        if not self.mapped:
            return self._decode(self.paths[position][side], channels, size, window, mask)
        if self._bytes is None:
            try:
                self._bytes = np.memmap(self._path, mode="r")
            except (OSError, ValueError) as error:
                raise UserError(f"The cached pixels {self._path} are gone ({error}). Run again.") from error
        start = self._offsets[position] + side * width * height * self.channels
        pixels = self._bytes[start : start + width * height * channels].reshape(height, width, channels)
        return pixels if window is None else pixels[window]

    def _decode(self, path: str, channels: int, size: tuple[int, int], window: Window | None, mask: bool) -> np.ndarray:
        try:
            if self.resize is None:
                return decode(path, channels, window, size, mask)
            pixels = resize_shorter(decode(path, channels, mask=mask), self.resize, mask)
            if pixels.shape[1::-1] != size:
                raise BadImage("it was of another size")
        except BadImage as error:
            raise UserError(f"{path} has changed since it was checked: {error}. Run again.") from error
        return pixels if window is None else pixels[window]
