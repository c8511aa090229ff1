"""Makes photographs with shapes in them, and their masks: python examples/segmentation/make_shapes.py FOLDER

The shapes are cut out of other photographs, so that their outline tells the class, not their color: 0 background,
1 disk, 2 square. Writes FOLDER/images/NNN.png and FOLDER/masks/NNN.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def make(folder: Path, count: int = 200, side: int = 96, seed: int = 0) -> None:
    """Write ``count`` images of side x side pixels and their masks."""
    from skimage import data

    photographs = [getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")]
    rng = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)

    def crop(photograph: np.ndarray) -> np.ndarray:
        top, left = (rng.integers(size - side) for size in photograph.shape[:2])
        return photograph[top : top + side, left : left + side, :3]

    y, x = np.mgrid[:side, :side]
    for number in range(count):
        image, mask = crop(photographs[rng.integers(4)]).copy(), np.zeros((side, side), np.uint8)
        for _ in range(rng.integers(1, 4)):
            shape, radius = rng.integers(1, 3), rng.integers(side // 10, side // 4)
            dy, dx = y - rng.integers(side), x - rng.integers(side)
            inside = dy**2 + dx**2 < radius**2 if shape == 1 else np.maximum(abs(dy), abs(dx)) < radius
            image[inside], mask[inside] = crop(photographs[rng.integers(4)])[inside], shape
        Image.fromarray(image).save(folder / "images" / f"{number:03d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:03d}.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
