"""A list of outlines to fill, and the two images that come of it: with colors, and the same lines without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from project.data.drawings.colors import INKS, WHITE, Color

FINER = 4  # the canvas has so many pixels for one of the image's, on each side
PAPER, INK = 0, 1  # numbers in the canvas; those of the colors follow
MARGIN = 0.02  # of the side
MOST_STRETCH = 1.2  # that a figure may be wider or higher than it is, to fill its square

# (name of a color, outline, ...) each; a name with a "<" lies within the last outline without one.
Parts = Sequence[tuple]


class Mark(NamedTuple):
    """One thing to draw.

    Attributes:
        points: (N, 2), in half heads.
        fill: Its color; None is ink.
        width: Of its line, against the drawing's usual one; 0: no line.
        closed: An area, else a stroke.
        within: It is drawn only inside all of these areas, from the widest inwards.
    """

    points: np.ndarray
    fill: Color | None
    width: float
    closed: bool
    within: tuple[np.ndarray, ...]


class Scene:
    """What a character is made of, from the back to the front.

    Args:
        random: Draws the pen and how the figure is bent, as by a hand that is no ruler.
    """

    def __init__(self, random: Random) -> None:
        self.marks: list[Mark] = []
        self.ground = WHITE
        self.ink = random.choice(INKS)
        self.pen = random.uniform(0.01, 0.022)  # of the side
        self.weight = random.choice((0.0, 0.0, 0.4, 0.7))  # how much heavier lines are below and on the right
        self.turn = random.gauss(0, 0.06)
        self.flip = random.choice((-1, 1))
        self.stretch = random.uniform(0.92, 1.1)
        self.waves = [(random.uniform(0, 0.033), random.uniform(1.3, 2.7), random.uniform(0, 6.3)) for _ in range(4)]
        self._within: tuple[np.ndarray, ...] = ()

    def area(self, fill: Color | None, *outlines: np.ndarray, width: float = 1.0) -> None:
        """Closed areas with their outlines; a fill of None makes them ink."""
        self.marks += [Mark(points, fill, width, True, self._within) for points in outlines]

    def line(self, *strokes: np.ndarray, width: float = 1.0) -> None:
        """Open strokes."""
        self.marks += [Mark(points, None, width, False, self._within) for points in strokes]

    def add(self, parts: Parts, colors: Mapping[str, Color | None]) -> None:
        """Areas from a table."""
        last = None
        for name, *outlines in parts:
            if name.startswith("<"):
                with self.within(last):
                    self.area(colors[name[1:]], *outlines, width=0.8)
            else:
                self.area(colors[name], *outlines)
                last = outlines[-1]

    @contextmanager
    def within(self, points: np.ndarray) -> Iterator[None]:
        """What is drawn in the block shows only inside the area, whose outline is drawn again at the end."""
        self._within = (*self._within, points)
        try:
            yield
        finally:
            self._within = self._within[:-1]

    def render(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The lines, uint8, (size, size), dark on white, and the colors, uint8, (size, size, 3)."""
        canvas = _Canvas(size * FINER, self)
        canvas.draw(self.marks)
        return canvas.pictures()


class _Canvas:
    """Holds numbers, not colors: paper, ink, then one for each color.

    So both images come from the very same pixels, by two tables, and no line lies elsewhere in one than in the other.
    """

    def __init__(self, side: int, scene: Scene) -> None:
        self.scene = scene
        self._turn_to(Image.new("L", (side, side), PAPER))
        self.colors: list[Color] = [scene.ground, scene.ink]
        self.pen = max(FINER / 2, scene.pen * side)
        # All outlines at once, one behind the other: one by one they took half of the time of a drawing.
        outlines = {id(points): points for mark in scene.marks for points in (mark.points, *mark.within)}
        visible = {id(mark.points) for mark in scene.marks if not mark.within}
        lengths = [len(points) for points in outlines.values()]
        bent = self._bent(np.concatenate(list(outlines.values())))
        seen = bent[np.repeat([name in visible for name in outlines], lengths)]
        low, high = seen.min(axis=0), seen.max(axis=0)
        scale = (side * (1 - 2 * MARGIN) - self.pen * (1 + scene.weight)) / (high - low)
        scale = np.minimum(scale, MOST_STRETCH * scale.min())
        placed = (bent - (low + high) / 2) * scale + side / 2
        corners = _corners(placed, lengths)
        ends = np.cumsum(lengths)[:-1]
        self.places = dict(
            zip(outlines, zip(np.split(placed, ends), np.split(corners, ends), strict=True), strict=True)
        )

    def _turn_to(self, image: Image.Image) -> None:
        """Draw on this image from now on."""
        self.image, self.tool = image, ImageDraw.Draw(image)

    def _bent(self, points: np.ndarray) -> np.ndarray:
        scene, (x, y) = self.scene, points.T
        x, y = x * scene.flip * scene.stretch, y / scene.stretch
        cos, sin = np.cos(scene.turn), np.sin(scene.turn)
        x, y = x * cos - y * sin, x * sin + y * cos
        waves = zip(scene.waves, (x, y, x, y), strict=True)
        a, b, c, d = (high * np.sin(rate * way + start) for (high, rate, start), way in waves)
        return np.stack([x + a + b, y + c + d], axis=1)

    def draw(self, marks: Iterable[Mark], depth: int = 0) -> None:
        """Marks inside an area (that at this depth of theirs) go on a copy, of which the area is taken."""
        for inside, group in groupby(marks, key=lambda mark: id(mark.within[depth]) if mark.within[depth:] else None):
            if inside is None:
                self._draw_all(group)
                continue
            inner = list(group)
            below = self.image
            self._turn_to(below.copy())
            self.draw(inner, depth + 1)
            area, corners = self.places[id(inner[0].within[depth])]
            mask = Image.new("1", below.size)
            ImageDraw.Draw(mask).polygon(area.ravel().tolist(), fill=1)
            below.paste(self.image, mask=mask)
            self._turn_to(below)
            self._stroke(area, corners, self.pen, closed=True)

    def _draw_all(self, marks: Iterable[Mark]) -> None:
        for mark in marks:
            (points, corners), width = self.places[id(mark.points)], mark.width * self.pen
            if mark.closed:
                if self.scene.weight and mark.width >= 1:
                    below = points + width * self.scene.weight / 2
                    self._stroke(below, _corners(below, [len(below)]), width, closed=True)
                number = INK if mark.fill is None else self._number(mark.fill)
                self.tool.polygon(points.ravel().tolist(), fill=number)
            if width:
                self._stroke(points, corners, width, mark.closed)

    def _stroke(self, points: np.ndarray, corners: np.ndarray, width: float, closed: bool) -> None:
        line = points.ravel().tolist()
        self.tool.line(line + line[:2] if closed else line, fill=INK, width=max(1, round(width)))
        round_off = points[corners].tolist()  # two straight pieces leave a notch between them
        if not closed:
            round_off += points[[0, -1]].tolist()
        for x, y in round_off:
            self.tool.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=INK)

    def _number(self, color: Color) -> int:
        if color not in self.colors[2:]:
            self.colors.append(color)
        return self.colors.index(color, 2)

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        red, green, blue = self.scene.ink
        ink = round(0.299 * red + 0.587 * green + 0.114 * blue)
        lines = self.image.point([ink if number == INK else 255 for number in range(256)])
        colored = Image.frombytes("P", self.image.size, self.image.tobytes())
        colored.putpalette([value for color in self.colors for value in color])
        return np.asarray(lines.reduce(FINER)), np.asarray(colored.convert("RGB").reduce(FINER))


def _corners(points: np.ndarray, lengths: list[int]) -> np.ndarray:
    """At which points (N, 2) of outlines, so many points each and all closed, the direction jumps: bool, (N,)."""
    number, count = np.arange(len(points)), np.array(lengths)
    first = np.repeat(np.cumsum(count) - count, count)
    count = np.repeat(count, count)
    before = points - points[first + (number - first - 1) % count]
    after = points[first + (number - first + 1) % count] - points
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return np.abs(np.arctan2(cross, (before * after).sum(axis=1))) > 0.35
