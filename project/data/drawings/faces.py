"""Eyes and mouths of all moods."""

from __future__ import annotations

from random import Random

from project.data.drawings.colors import BLUSH, MOUTH, TONGUE, WHITE, Color
from project.data.drawings.scene import Scene
from project.data.drawings.shapes import both, box, curve, oval, symmetric

LOOKS = ("dot", "dot", "round", "round", "iris", "iris", "tall", "tall", "happy", "sleepy")
MOUTHS = ("smile", "smile", "open", "open", "grin", "cat", "flat", "round", "tooth")


def face(scene: Scene, random: Random, skin: Color, iris: Color, x: float, y: float, mouth: float) -> None:
    """Eyes at (x, y) and its mirror image, and a mouth at (0, mouth)."""
    if random.random() < 0.45:
        scene.area(BLUSH, *both(oval(x + 0.17, (y + 2 * mouth) / 3, 0.17, 0.1)), width=0)
    eyes(scene, random, skin, iris, x, y)
    smile(scene, random, mouth)


def eyes(scene: Scene, random: Random, skin: Color, iris: Color, x: float, y: float, size: float = 0.22) -> None:
    """Two eyes, one of them winking now and then, with brows or without."""
    style, wink, brow = random.choice(LOOKS), random.random() < 0.08, random.uniform(-0.15, 0.12)
    r = size * random.uniform(0.85, 1.2)
    look = random.uniform(-0.3, 0.3) * r
    for side in (-1, 1):
        at = side * x
        if style == "happy" or (wink and side == 1):
            lid = curve([(at - r, y + 0.3 * r), (at, y - 0.5 * r), (at + r, y + 0.3 * r)], closed=False)
            scene.line(lid, width=1.2)
        elif style == "dot":
            scene.area(None, oval(at, y, 0.55 * r, 0.8 * r))
            scene.area(WHITE, oval(at - 0.15 * r, y - 0.3 * r, 0.2 * r), width=0)
        elif style == "tall":
            scene.area(iris, oval(at, y, 0.85 * r, 1.35 * r))
            scene.area(None, oval(at, y - 0.1 * r, 0.45 * r, 0.8 * r), width=0)
            scene.area(WHITE, oval(at - 0.3 * r, y - 0.55 * r, 0.3 * r), width=0)
        else:
            white = oval(at, y, r, 1.15 * r)
            scene.area(WHITE, white)
            with scene.within(white):
                if style == "iris":
                    scene.area(iris, oval(at + look, y + 0.1 * r, 0.68 * r, 0.8 * r), width=0.7)
                scene.area(None, oval(at + look, y + 0.1 * r, 0.45 * r, 0.58 * r), width=0)
                scene.area(WHITE, oval(at + look - 0.2 * r, y - 0.15 * r, 0.2 * r), width=0)
                if style == "sleepy":
                    scene.area(skin, box(at - 2 * r, y - 2 * r, at + 2 * r, y - 0.15 * r))
        if style in ("dot", "round"):
            ends = (at - side * r, y - 1.7 * r - brow), (at + side * r, y - 1.7 * r + brow)
            scene.line(curve([ends[0], (at, y - 1.9 * r), ends[1]], closed=False))


def smile(scene: Scene, random: Random, y: float, w: float = 0.28) -> None:
    """A mouth of any mood, so wide to either side."""
    style = random.choice(MOUTHS)
    w *= random.uniform(0.75, 1.25)
    if style in ("open", "grin"):
        opened = symmetric("0,0 1,-.15! .7,.75 0,1.05") * w + (0, y)
        scene.area(MOUTH if style == "open" else WHITE, opened)
        with scene.within(opened):
            if style == "open":
                scene.area(TONGUE, oval(0, y + 1.1 * w, 0.6 * w, 0.5 * w), width=0.6)
            else:
                scene.line(curve("-1,.3 0,.42 1,.3", closed=False) * w + (0, y), width=0.6)
    elif style == "round":
        scene.area(MOUTH, oval(0, y + 0.05, 0.4 * w, 0.5 * w))
    elif style == "cat":
        scene.line(*both(curve("0,-.05 .35,.35 .8,0", closed=False) * w + (0, y)))
    else:
        if style == "tooth":
            scene.area(WHITE, box(-0.3 * w, y, 0.3 * w, y + 0.5 * w), width=0.7)
        way = {"smile": "-1,-.15 0,.5 1,-.15", "flat": "-.7,.2 0,0 .7,-.1", "tooth": "-1,-.12 0,.08 1,-.12"}[style]
        scene.line(curve(way, closed=False) * w + (0, y))
