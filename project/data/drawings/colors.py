"""Flat colors: those that follow from what a thing is, and those that anything may have."""

from __future__ import annotations

import colorsys
from random import Random

Color = tuple[int, int, int]


def read(text: str) -> tuple[Color, ...]:
    """Colors from hexadecimal words."""
    return tuple(tuple(bytes.fromhex(word)) for word in text.split())


FREE = read(
    "e6453b c0283a f28b30 f7c948 b8cf3a 5fae3f 2a7f52 a3dcb4 2aa59c 57c3e8 3b6fd4 2c3b86 7e57c2 c9b6f2"
    " b04cc0 ec6ead f7a9bf 8a5334 5d3b57 44546a 9aa5b1 e8dcc0 34343e"
)
SKINS = read("fbdcc4 f6cba6 eab98c d99f6c b97a4b 935a35 6d4128 f3c7b4")
HAIRS = read("2b2222 3b2a24 5a3825 7d4c29 a56b34 d9a441 f1d27a c2542b b9b9bd 26283a")
EYES = read("466eaa 5a3c28 468250 dca040")
INKS = read("141216 241a18 161a2c 0c0c0c")
WHITE, CREAM, MOUTH, TONGUE, BLUSH, NOSE, PINK = read("ffffff fff3dc 8e2f3a f08a8f f59a94 4a3236 f3aab0")
GOLD, BEAK, LEAF, RED, SHADE = read("f6c52f f39a2b 62b146 d63031 3c2828")


def vary(random: Random, color: Color) -> Color:
    """The color, a little off in hue, saturation and value."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in color))
    hue = (hue + random.gauss(0, 0.012)) % 1
    saturation = min(1, max(0, saturation + random.gauss(0, 0.04)))
    value = min(1, max(0, value + random.gauss(0, 0.03)))
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def free(random: Random, count: int) -> list[Color]:
    """So many different colors, of which nothing tells in advance."""
    return [vary(random, color) for color in random.sample(FREE, count)]


def mix(color: Color, other: Color, share: float) -> Color:
    """The color with a share of the other in it."""
    return tuple(round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
