"""What may be worn: garments with patterns, scarves, glasses, and things on the head."""

from __future__ import annotations

from random import Random

import numpy as np

from project.data.drawings.colors import GOLD, LEAF, RED, WHITE, Color
from project.data.drawings.scene import Parts, Scene
from project.data.drawings.shapes import both, box, cloud, curve, limb, oval, star, symmetric

PATTERNS = ("", "", "", "stripes", "bars", "dots", "half", "buttons", "heart", "star", "disc")
# "one" and "two" are the wearer's colors; all others belong to the thing.
BIG: dict[str, Parts] = {
    "cap": (
        ("one", symmetric("0,-1.2 .75,-.95 1.08,-.4! 0,-.32")),
        ("two", curve("-.5,-.5 .5,-.55 1.5,-.5 1.7,-.3 1,-.22 0,-.2"), oval(0, -1.2, 0.13, 0.1)),
    ),
    "beanie": (
        ("one", symmetric("0,-1.4 .75,-1.1 1.05,-.5! 0,-.4")),
        ("two", symmetric("0,-.65 1.16,-.75 1.18,-.36 0,-.26"), cloud(0, -1.45, 0.3, 0.28, 9, 0.15)),
    ),
    "wizard": (
        ("one", oval(0, -0.5, 1.3, 0.26), curve(".4,-2! .5,-1.3 .95,-.6! 0,-.42 -.95,-.6! -.3,-1.35")),
        ("<two", box(-1.2, -0.85, 1.2, -0.4), star(0, -1.2, 0.26, 0.12, 5)),
    ),
    "top hat": (
        ("one", oval(0, -0.62, 1.3, 0.24), symmetric("0,-1.75 .72,-1.75! .66,-.62! 0,-.5")),
        ("<two", box(-1, -1.05, 1, -0.4)),
    ),
    "straw hat": (
        ("one", oval(0, -0.55, 1.5, 0.36), symmetric("0,-1.35 .6,-1.15 .8,-.55! 0,-.42")),
        ("<two", box(-1, -0.85, 1, -0.3)),
    ),
    "santa": (
        ("red", curve("-1.08,-.55! -.75,-1.3 .2,-1.75 1.2,-1.2 1.5,-.4 1.1,-.55!")),
        ("white", limb("-1.15,-.5 0,-.62 1.15,-.5", 0.36, 0.36), cloud(1.5, -0.35, 0.24, 0.24, 7, 0.2)),
    ),
    "headphones": (
        ("one", limb("-1.12,0 -.86,-.86 0,-1.25 .86,-.86 1.12,0", 0.22, 0.22)),
        ("two", *both(oval(1.12, 0.05, 0.26, 0.4))),
    ),
}
SMALL: dict[str, Parts] = {
    "crown": (
        ("gold", curve("-.75,-.75! -.9,-1.5! -.4,-1.15! 0,-1.65! .4,-1.15! .9,-1.5! .75,-.75! 0,-.65")),
        ("two", oval(0, -0.95, 0.14, 0.16)),
        ("one", *both(oval(0.48, -0.97, 0.1))),
    ),
    "bow": (("one", *both(curve("0,-1.1 .3,-1.35 .65,-1.5 .72,-1.1 .65,-.72 .3,-.85"))), ("two", oval(0, -1.1, 0.19))),
    "flower": (("one", cloud(0.7, -0.8, 0.52, 0.52, 6, 0.3)), ("gold", oval(0.7, -0.8, 0.18))),
    "party": (
        ("one", symmetric("0,-2! .6,-.8! 0,-.66")),
        ("<two", box(-1, -1.65, 1, -1.4), box(-1, -1.15, 1, -0.9)),
        ("two", cloud(0, -2, 0.24, 0.24, 7, 0.25)),
    ),
    "sprout": (("leaf", limb("0,-.85 .05,-1.4", 0.12, 0.12), *both(curve("0,-1.35! .35,-1.75 .95,-1.7! .5,-1.3"))),),
}


def hat(scene: Scene, random: Random, hats: dict[str, Parts], one: Color, two: Color) -> None:
    """One of the hats, on a head."""
    fixed = {"red": RED, "white": WHITE, "gold": GOLD, "leaf": LEAF}
    scene.add(hats[random.choice(list(hats))], {"one": one, "two": two, **fixed})


def garment(scene: Scene, random: Random, outline: np.ndarray, one: Color, two: Color) -> None:
    """An area of the first color, often with a pattern of the second."""
    (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
    step, y, r = random.uniform(0.26, 0.4), (top + bottom) / 2, 0.27 * min(right - left, bottom - top)
    rows = np.arange(top + step, bottom, step)
    patterns = {
        "": lambda: [],
        "stripes": lambda: [box(left, row, right, row + step) for row in rows[::2]],
        "bars": lambda: [
            bar for x in np.arange(step / 2, right, 2 * step) for bar in both(box(x, top, x + step, bottom))
        ],
        "dots": lambda: [
            oval(x + step * (number % 2), row, 0.42 * step)
            for number, row in enumerate(np.arange(top + step, bottom + step, 1.3 * step))
            for x in np.arange(left, right, 1.8 * step)
        ],
        "half": lambda: [box(left, y, right, bottom)],
        "buttons": lambda: [oval(0, row, 0.09) for row in rows],
        "heart": lambda: [symmetric("0,-.4! .5,-.9 1,-.4 .6,.35 0,1!") * r + (0, y)],
        "star": lambda: [star(0, y, 1.2 * r, 0.55 * r, 5)],
        "disc": lambda: [oval(0, y, r)],
    }
    pattern = patterns[random.choice(PATTERNS)]()
    scene.area(one, outline)
    with scene.within(outline):
        scene.area(two, *pattern, width=0.7)


def scarf(scene: Scene, random: Random, y: float, one: Color, two: Color) -> None:
    """Round the neck at the height y, one end hanging down."""
    garment(scene, random, box(0.2, y, 0.58, y + 0.75), two, one)
    scene.area(one, limb([(-0.62, y - 0.06), (0, y + 0.08), (0.62, y - 0.06)], 0.34, 0.34))


def glasses(scene: Scene, x: float, y: float) -> None:
    """Two rims and the bridge between them."""
    rim = oval(x, y, 0.34)
    scene.line(*both(np.concatenate([rim, rim[:1]])), np.array([(0.34 - x, y), (x - 0.34, y)]), width=1.1)
