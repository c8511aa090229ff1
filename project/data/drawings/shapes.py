"""Outlines as arrays of points, (N, 2), x to the right and y down; closed ones do not repeat their first point.

The unit is half a head: a character's head is a circle of radius 1 around the origin, its body below.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

TURN = np.linspace(0, 2 * np.pi, 40, endpoint=False)
STEP = (np.arange(7) / 7)[:, None]
HERMITE = (
    2 * STEP**3 - 3 * STEP**2 + 1,
    STEP**3 - 2 * STEP**2 + STEP,
    3 * STEP**2 - 2 * STEP**3,
    STEP**3 - STEP**2,
)
"""Weights of a piece's first point, of the slope there, of its last point and of the slope there."""

Points = str | Sequence[tuple[float, float]]  # in text a "!" marks a corner: "0,-1! 1,0 0,1" is the half of a drop


def oval(x: float, y: float, rx: float, ry: float | None = None, square: float = 2.0, turn: float = 0.0) -> np.ndarray:
    """An ellipse around (x, y), or a superellipse (an exponent of 4 is nearly a rectangle), turned clockwise."""
    u, v = _superellipse(square)
    u, v = u * rx, v * (rx if ry is None else ry)
    points = np.empty((len(u), 2))
    if turn:
        points[:, 0] = x + u * np.cos(turn) - v * np.sin(turn)
        points[:, 1] = y + u * np.sin(turn) + v * np.cos(turn)
    else:
        points[:, 0], points[:, 1] = x + u, y + v
    return points


@lru_cache(maxsize=64)
def _superellipse(square: float) -> tuple[np.ndarray, np.ndarray]:
    u, v = (np.sign(wave) * np.abs(wave) ** (2 / square) for wave in (np.cos(TURN), np.sin(TURN)))
    return u, v


def curve(points: Points, closed: bool = True) -> np.ndarray:
    """Through the points by Hermite's cubics, with the slopes of Catmull and Rom, which are 0 at corners."""
    # A copy, for a scene tells outlines apart by which array they are.
    return _written(points, closed).copy() if isinstance(points, str) else _curve(points, closed)


@lru_cache(maxsize=512)
def _written(points: str, closed: bool) -> np.ndarray:
    return _curve(points, closed)


def _curve(points: Points, closed: bool) -> np.ndarray:
    words = points.split() if isinstance(points, str) else []
    smooth = np.array([[not word.endswith("!")] for word in words] or 1)
    at = np.array([word.rstrip("!").split(",") for word in words] or points, dtype=float)
    slope = (np.roll(at, -1, axis=0) - np.roll(at, 1, axis=0)) / 2 * smooth
    if not closed:
        slope[[0, -1]] = at[1] - at[0], at[-1] - at[-2]
    ends, slopes = np.roll(at, -1, axis=0), np.roll(slope, -1, axis=0)
    parts = (weight * values[:, None] for weight, values in zip(HERMITE, (at, slope, ends, slopes), strict=True))
    pieces = sum(parts).reshape(-1, 2)
    return pieces if closed else pieces[: 1 - len(STEP)]


def symmetric(right: str) -> np.ndarray:
    """A closed curve from its right half, from the top to the bottom, which begins and ends on the axis (x = 0)."""
    words = right.split()
    return curve(" ".join([*words, *("-" + word for word in reversed(words[1:-1]))]))


def limb(points: Points, start: float, end: float) -> np.ndarray:
    """An arm, a leg or a tail along an open curve, so wide at its start (flat) and at its end (round)."""
    path = curve(points, closed=False)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = along[:, ::-1] * (1, -1)
    half = np.linspace(start, end, len(path))[:, None] / 2
    turn = np.linspace(0, np.pi, 9)[1:-1, None]
    cap = path[-1] + end / 2 * (across[-1] * np.cos(turn) + along[-1] * np.sin(turn))
    return np.concatenate([path + half * across, cap, (path - half * across)[::-1]])


def cloud(x: float, y: float, rx: float, ry: float, bumps: int, depth: float) -> np.ndarray:
    """An ellipse with so many round bumps: clouds, curls, petals."""
    angle = np.linspace(0, 2 * np.pi, bumps * 9, endpoint=False)
    radius = 1 - depth + depth * np.abs(np.sin(bumps * angle / 2))
    return np.stack([x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)], axis=1)


def star(x: float, y: float, outer: float, inner: float, tips: int) -> np.ndarray:
    """A star, one tip upwards."""
    angle = np.arange(2 * tips) * np.pi / tips - np.pi / 2
    radius = np.where(np.arange(2 * tips) % 2, inner, outer)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """A rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def both(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outline and its mirror image on the other side of the axis."""
    return points * (-1, 1), points
