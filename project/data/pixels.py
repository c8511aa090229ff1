"""Pixels by number: from one memory-mapped file of decoded images where that fits, else decoded anew each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from project.data.cache import Cache, key_of
from project.data.images import BadImage, ImageRecord, Window, decode, resize_shorter, resized
from project.data.parallel import run_parallel
from workbench.console import rank_zero_print
from workbench.errors import UserError


class PixelFile:
    """Where each image's pixels lie in the file that holds them all.

    The file is nothing but bytes: for each different image (by content, in the order of the digests) its pixels and
    then its partner's. Its name is a hash of all of that, so that neither a new split nor a moved folder makes it anew,
    and workers and ranks share it through the system's page cache.

    Args:
        images: All images of all splits.
        channels: 1 or 3.
        resize: Pixels of the shorter side, or None.
        cache: Where the file lies.
    """

    def __init__(self, pictures: Sequence[ImageRecord], channels: int, resize: int | None, cache: Cache) -> None:
        self.pictures = {picture.digest: picture for picture in pictures}
        self.channels = channels
        self.resize = resize
        self.cache = cache
        self.offsets: dict[str, int] = {}
        self.bytes = 0
        for digest in sorted(self.pictures):
            picture = self.pictures[digest]
            width, height = resized(picture.width, picture.height, resize)
            self.offsets[digest] = self.bytes
            self.bytes += width * height * channels * (2 if picture.target_path else 1)
        key = key_of(sorted(self.pictures), channels, resize, self.bytes)
        self.path = cache.path(f"pixels-{key}.bin")

    @property
    def is_there(self) -> bool:
        """Whether the file is there, whole."""
        return self.path.is_file() and self.path.stat().st_size == self.bytes

    def write(self, workers: int, progress: bool = True) -> None:
        """Decode every image into the file, which appears whole or not at all.

        Raises:
            UserError: When the cache cannot be written, or an image is no longer what the index saw.
        """
        pictures = [self.pictures[digest] for digest in sorted(self.pictures)]
        store = PixelStore(pictures, channels=self.channels, resize=self.resize)

        def both(position: int) -> tuple[np.ndarray, ...]:
            return (store[position], store.target(position)) if store.has_target(position) else (store[position],)

        decoded = run_parallel(
            both, range(len(store)), workers=workers, what="Keeping decoded pixels", progress=progress
        )
        with self.cache.writing(self.path.name) as temporary, temporary.open("wb") as file:
            for sides in decoded:
                for side in sides:
                    file.write(side)


class PixelStore:
    """The images of one split as arrays, by position.

    Goes to worker processes without its pixels: each maps the file again.

    Args:
        images: In the order of their positions.
        channels: 1 for gray, 3 for RGB.
        resize: Pixels of the shorter side, or None to leave images as they are.
        file: The decoded pixels, or None to decode at each access.
    """

    def __init__(
        self,
        pictures: Sequence[ImageRecord],
        *,
        channels: int,
        resize: int | None = None,
        file: PixelFile | None = None,
    ) -> None:
        self.channels = channels
        self.resize = resize
        self.paths = [picture.path for picture in pictures]
        self.target_paths = [picture.target_path for picture in pictures]
        self.has_targets = bool(pictures) and all(self.target_paths)
        sizes = [resized(picture.width, picture.height, resize) for picture in pictures]
        self._sizes = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        self._path = file.path if file else None
        self._offsets = np.array([file.offsets[picture.digest] for picture in pictures] if file else [], dtype=np.int64)
        self._bytes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> np.ndarray:
        """The image, uint8, (H, W, channels): a read-only view of the file's pixels, or freshly decoded.

        Raises:
            UserError: When it is decoded here and no longer what the index saw.
        """
        return self._side(position, self.paths[position], 0)

    def parts(self, position: int, window: Window | None) -> tuple[np.ndarray, np.ndarray | None]:
        """What lies in a window of the image, and of its partner or None: `store[position][window]`, sooner.

        Args:
            position: Of the image.
            window: Rows and columns, within the image; None: all of it.
        """
        path = self.target_paths[position]
        target = None if path is None else self._side(position, path, 1, window)
        return self._side(position, self.paths[position], 0, window), target

    def target(self, position: int) -> np.ndarray:
        """The partner of a folder pair, like `store[position]`."""
        path = self.target_paths[position]
        if path is None:
            raise ValueError(f"image {position} has no target")
        return self._side(position, path, 1)

    def has_target(self, position: int) -> bool:
        """Whether an image has a partner: all have or none, but for extra pairs beside images without partners."""
        return self.target_paths[position] is not None

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

    def _side(self, position: int, path: str, side: int, window: Window | None = None) -> np.ndarray:
        width, height = self._sizes[position].tolist()
        if self._path is None:
            return self._decode(path, (width, height), window)
        if self._bytes is None:
            try:
                self._bytes = np.memmap(self._path, mode="r")
            except (OSError, ValueError) as error:
                raise UserError(
                    f"The cached pixels {self._path} are gone ({error}). Run again to make them."
                ) from error
        count = width * height * self.channels
        start = int(self._offsets[position]) + side * count
        pixels = self._bytes[start : start + count].reshape(height, width, self.channels)
        return pixels if window is None else pixels[window]

    def _decode(self, path: str, size: tuple[int, int], window: Window | None) -> np.ndarray:
        try:
            if self.resize is None:
                return decode(path, self.channels, window, size)
            pixels = resize_shorter(decode(path, self.channels), self.resize)
            if pixels.shape[1::-1] != size:
                raise BadImage("it was of another size")
        except BadImage as error:
            raise UserError(f"{path} has changed since it was checked: {error}. Run again.") from error
        return pixels if window is None else pixels[window]


def pixel_file(
    pictures: Sequence[ImageRecord],
    *,
    channels: int,
    resize: int | None,
    cache: Cache,
    limit_gb: float,
    workers: int = 0,
    progress: bool = True,
) -> PixelFile | None:
    """The file of decoded pixels, made where it is missing; None where the images need more than `limit_gb`.

    Raises:
        UserError: When the cache cannot be written.
    """
    file = PixelFile(pictures, channels, resize, cache)
    if file.bytes > limit_gb * 1e9:
        if limit_gb > 0:
            rank_zero_print(
                f"Decoded pixels would take {file.bytes / 1e9:.1f} GB, more than --data.decoded_cache_gb {limit_gb:g}: "
                "images are decoded anew each time."
            )
        return None
    if not file.is_there:
        file.write(workers, progress)
    return file
