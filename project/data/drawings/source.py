"""The drawings as files: pairs of lines and colors, written once."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from project.data.cache import Cache, key_of
from project.data.drawings.characters import draw
from project.data.images import Entry
from project.data.parallel import counted
from workbench.console import rank_zero_print


class Drawings:
    """Line drawings with the same images in colors as their targets.

    Args:
        cache: Gets them, as drawings-KEY/{lines,colors}/0000.png.
        count: How many; the first so many numbers of `draw`.
        size: Pixels of their sides.
        progress: Whether a bar may be shown.
    """

    paired = True

    def __init__(self, cache: Cache, count: int = 2000, size: int = 96, progress: bool = True) -> None:
        self.cache = cache
        self.count = count
        self.size = size
        self.progress = progress
        # With the code that draws them, so that what it drew before a change is not taken for what it draws now.
        code = [file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.py"))]
        self.folder = cache.path(f"drawings-{key_of(count, size, code)}")

    def find(self) -> list[Entry]:
        """List them; the first time, draw them.

        Raises:
            UserError: When the cache cannot be written.
        """
        if not self.folder.is_dir():
            self._draw()
        names = [f"{number:04d}.png" for number in range(self.count)]
        lines, colors = self.folder / "lines", self.folder / "colors"
        return [Entry(str(lines / name), name, target_path=str(colors / name)) for name in names]

    def _draw(self) -> None:
        with self.cache.filling(self.folder.name) as temporary, self.cache.guarded():
            folders = [temporary / "lines", temporary / "colors"]
            for folder in folders:
                folder.mkdir()
            drawn = (draw(number, self.size) for number in range(self.count))
            for number, pair in enumerate(counted(drawn, self.count, "Drawing characters", self.progress)):
                for folder, pixels in zip(folders, pair, strict=True):
                    Image.fromarray(pixels).save(folder / f"{number:04d}.png")
        rank_zero_print(f"{self.count} drawings now lie in {self.folder} as PNG files.")
