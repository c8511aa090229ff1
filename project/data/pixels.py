"""Pixels by position: from one memory-mapped file of decoded images where that fits, else decoded anew each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from project.data.cache import Cache, key_of
from project.data.images import BadImage, ImageRecord, Window, decode, resize_shorter, resized
from project.data.parallel import run_parallel
from workbench.console import rank_zero_print
from workbench.errors import UserError


class PixelFile:
    """Where each image's pixels lie in the cache file that holds all splits.

    The file is nothing but bytes: for each different image, in the order of the digests, its pixels and then its
    target's. Its name is a hash of all of that: neither a new split nor a moved folder makes it anew, and workers and
    ranks share it through the system's page cache.
    """

    def __init__(self, records: Sequence[ImageRecord], *, channels: int, resize: int | None, masks: bool) -> None:
        by_digest = {record.digest: record for record in records}
        self.records = [by_digest[digest] for digest in sorted(by_digest)]
        self.options = {"channels": channels, "resize": resize, "masks": masks}
        self.offsets: dict[str, int] = {}
        self.bytes = 0
        for record in self.records:
            width, height = resized(record.width, record.height, resize)
            target_channels = 0 if record.target_path is None else 1 if masks else channels
            self.offsets[record.digest] = self.bytes
            self.bytes += width * height * (channels + target_channels)
        self.name = f"pixels-{key_of(sorted(by_digest), self.options, self.bytes)}.bin"

    def write(self, cache: Cache, workers: int) -> None:
        """Decode every image into the file, unless it is there, whole.

        Raises:
            UserError: the cache cannot be written, or an image is no longer what the index saw.
        """
        path = cache.path(self.name)
        if path.is_file() and path.stat().st_size == self.bytes:
            return
        store = PixelStore(self.records, **self.options)
        decoded = run_parallel(store.read, range(len(store)), workers=workers, title="Decoding images")
        with cache.writing(self.name) as temporary, temporary.open("wb") as file:
            for sides in decoded:
                for side in sides:
                    if side is not None:
                        file.write(side)


class PixelStore:
    """The images of one split as arrays; a pickled one maps the file again.

    Args:
        records: in the order of their positions.
        channels: 1 for gray, 3 for RGB.
        resize: pixels of the shorter side; None leaves images as they are.
        masks: whether targets are class numbers, one channel.
        file: the decoded pixels and the cache that holds them; None decodes at each access.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        *,
        channels: int,
        resize: int | None = None,
        masks: bool = False,
        file: tuple[PixelFile, Cache] | None = None,
    ) -> None:
        self.channels, self.resize, self.masks = channels, resize, masks
        self.paths = [(record.path, record.target_path) for record in records]
        self.has_targets = bool(records) and all(target for _, target in self.paths)
        sizes = [resized(record.width, record.height, resize) for record in records]
        self._sizes = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        self._path = file[1].path(file[0].name) if file else None
        self._offsets = [file[0].offsets[record.digest] for record in records] if file else []
        self._bytes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> np.ndarray:
        """The image, uint8, (H, W, channels): a read-only view of the file, or freshly decoded.

        Raises:
            UserError: it is no longer what the index saw.
        """
        return self._side(position, 0)

    def target(self, position: int) -> np.ndarray:
        """The target of a folder pair, like `store[position]`; of masks (H, W, 1)."""
        return self._side(position, 1)

    def read(self, position: int, window: Window | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """A window of the image and of its target, None if it has none."""
        target = self._side(position, 1, window) if self.has_target(position) else None
        return self._side(position, 0, window), target

    def has_target(self, position: int) -> bool:
        """All images have one or none has, but for extra pairs beside images without targets."""
        return self.paths[position][1] is not None

    @property
    def mapped(self) -> bool:
        """Whether pixels come out of the file of decoded images, at next to no cost."""
        return self._path is not None

    def width(self, position: int) -> int:
        """Columns, after resizing."""
        return int(self._sizes[position, 0])

    def height(self, position: int) -> int:
        """Rows, after resizing."""
        return int(self._sizes[position, 1])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_bytes": None}

    def _side(self, position: int, side: int, window: Window | None = None) -> np.ndarray:
        mask = self.masks and side == 1
        width, height = self._sizes[position].tolist()
        if self._path is None:
            return self._decode(self.paths[position][side], (width, height), window, mask)
        if self._bytes is None:
            try:
                self._bytes = np.memmap(self._path, mode="r")
            except (OSError, ValueError) as error:
                raise UserError(
                    f"The cached pixels {self._path} are gone ({error}). Run again: it makes them."
                ) from error
        start = self._offsets[position] + side * width * height * self.channels
        channels = 1 if mask else self.channels
        pixels = self._bytes[start : start + width * height * channels].reshape(height, width, channels)
        return pixels if window is None else pixels[window]

    def _decode(self, path: str, size: tuple[int, int], window: Window | None, mask: bool) -> np.ndarray:
        channels = 1 if mask else self.channels
        try:
            if self.resize is None:
                return decode(path, channels, window, size, mask)
            pixels = resize_shorter(decode(path, channels, mask=mask), self.resize, mask)
            if pixels.shape[1::-1] != size:
                raise BadImage("it was of another size")
        except BadImage as error:
            raise UserError(f"{path} has changed since it was checked: {error}. Run again.") from error
        return pixels if window is None else pixels[window]


def pixel_file(
    records: Sequence[ImageRecord], *, cache: Cache, limit_gb: float, workers: int = 0, **options
) -> PixelFile | None:
    """The file of decoded pixels, made where it is missing; None if the images need more than `limit_gb`."""
    file = PixelFile(records, **options)
    if file.bytes > limit_gb * 1e9:
        if limit_gb > 0:
            rank_zero_print(
                f"Decoded pixels would take {file.bytes / 1e9:.1f} GB, more than --data.decoded_cache_gb {limit_gb:g}: "
                "images are decoded each time."
            )
        return None
    file.write(cache, workers)
    return file
