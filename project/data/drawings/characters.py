"""One drawing from its number, and many on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from PIL import Image

from project.data.drawings.animals import animal
from project.data.drawings.beings import being
from project.data.drawings.colors import WHITE, free, mix
from project.data.drawings.people import person
from project.data.drawings.scene import Scene

KINDS = {person: 45, animal: 25, being: 30}  # of a hundred
GROUND = 0.6  # share of the drawings that stand on a colored card, of any color, instead of on paper


def draw(number: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """The drawing of this number: always the same, and another for another number.

    Args:
        number: Not negative.
        size: Pixels of both sides; the same figure in every size.

    Returns:
        The lines, uint8, (size, size), dark on white, and the same image in colors, uint8, (size, size, 3).
    """
    random = Random(number)
    scene = Scene(random)
    (character,) = random.choices(list(KINDS), list(KINDS.values()))
    character(scene, random)
    if random.random() < GROUND:
        (color,) = free(random, 1)
        scene.ground = mix(color, WHITE, random.uniform(0, 0.6))
    return scene.render(size)


def sheet(numbers: Sequence[int], columns: int = 8, size: int = 96) -> Image.Image:
    """Drawings side by side, each in colors above its lines: `columns` in a row, `size` pixels each."""
    rows = -(-len(numbers) // columns)
    picture = Image.new("RGB", (columns * size, 2 * rows * size), "white")
    for place, number in enumerate(numbers):
        lines, colors = draw(number, size)
        x, y = place % columns * size, place // columns * 2 * size
        picture.paste(Image.fromarray(colors), (x, y))
        picture.paste(Image.fromarray(lines), (x, y + size))
    return picture
