"""Animals: what they are says the color of the fur, but not of the clothes."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np

from project.data.drawings import clothes
from project.data.drawings.colors import CREAM, EYES, NOSE, PINK, SHADE, WHITE, Color, free, mix, read, vary
from project.data.drawings.faces import eyes, face, smile
from project.data.drawings.scene import Scene
from project.data.drawings.shapes import both, box, curve, limb, oval, symmetric


class Species(NamedTuple):
    """What one kind of animal looks like.

    Attributes:
        ears: One of EARS.
        muzzle: "none", "oval", "snout", "mask" or "wide".
        tail: One of TAILS.
        furs: One of these, a little varied.
        inner: Color of the inner ears, the muzzle and the belly; None: a pale one of the fur.
    """

    ears: str
    muzzle: str
    tail: str
    furs: tuple[Color, ...]
    inner: Color | None = None


SPECIES = (
    Species("pointed", "none", "thin", read("e9963e 8a8f98 e9963e d9c2a0")),  # cat
    Species("tall", "mask", "bushy", read("e2762b d9622a"), WHITE),  # fox
    Species("round", "oval", "none", read("8b5a36 6b432b a9743f")),  # bear
    Species("long", "none", "none", read("e9e2dc cfc4bb b8a08a"), PINK),  # rabbit
    Species("large", "none", "thin", read("a3a7b1 8d919c"), PINK),  # mouse
    Species("folded", "snout", "none", read("f4a7b0 f0959f"), (242, 146, 158)),  # pig
    Species("hanging", "oval", "thin", read("c98d4e a06a3c e6cfa3"), CREAM),  # dog
    Species("bulges", "wide", "none", read("6fb544 4f9d3f 8cc152"), (214, 232, 150)),  # frog
    Species("horns", "snout", "thin", read("f1ece6 8d6448"), PINK),  # cow
)
CAT, LYNX = curve(".2,-.7! .85,-1.4! 1.1,-.1!"), curve(".2,-.7! .85,-1.65! 1.1,-.1!")
EARS = {
    "pointed": (("fur", *both(CAT)), ("inner", *both((CAT - (0.7, -0.75)) * 0.55 + (0.74, -0.7)))),
    "tall": (("fur", *both(LYNX)), ("inner", *both((LYNX - (0.7, -0.85)) * 0.55 + (0.74, -0.8)))),
    "round": (("fur", *both(oval(0.9, -0.73, 0.4))), ("inner", *both(oval(0.9, -0.73, 0.22)))),
    "large": (("fur", *both(oval(0.95, -0.8, 0.62))), ("inner", *both(oval(0.95, -0.8, 0.38)))),
    "long": (("fur", *both(oval(0.45, -1.35, 0.3, 0.75))), ("inner", *both(oval(0.46, -1.3, 0.14, 0.52)))),
    "folded": (("fur", *both(curve(".4,-.75! .8,-1.2 1.15,-.7! .9,-.45!"))),),
    "hanging": (),  # these lie before the head
    "bulges": (
        ("fur", *both(oval(0.58, -0.75, 0.42))),
        ("white", *both(oval(0.58, -0.78, 0.27))),
        ("ink", *both(oval(0.56, -0.75, 0.11, 0.14))),
    ),
    "horns": (("cream", *both(curve(".4,-.75! .75,-1.4! .85,-.6!"))), ("fur", *both(oval(1.25, -0.4, 0.38, 0.2)))),
}
TAILS = {
    "none": (),
    "thin": (("fur", limb(".4,1.8 1.2,1.95 1.45,1.4 1.3,.95", 0.24, 0.2)),),
    "bushy": (("fur", curve(".3,1.9 1,2.1 1.7,1.6 1.55,.7! 1.1,1.2 .6,1.5")), ("<inner", box(1.0, 0.5, 2.0, 1.15))),
}


def animal(scene: Scene, random: Random) -> None:
    """One of the animals, often dressed."""
    kind = random.choice(SPECIES)
    fur = vary(random, random.choice(kind.furs))
    inner = kind.inner or mix(fur, WHITE, 0.6)
    coat, second, wear = free(random, 3)
    colors = {"fur": fur, "inner": inner, "white": WHITE, "cream": CREAM, "ink": None}
    plump, dressed = random.uniform(0.88, 1.12), random.random() < 0.8
    scene.add(TAILS[kind.tail], colors)
    scene.area(fur, *both(oval(random.uniform(0.5, 0.65), 2.1, 0.42, 0.26)))
    body = oval(0, 1.4, plump, 0.78, 2.3)
    if dressed:
        clothes.garment(scene, random, body, coat, second)
    else:
        scene.area(fur, body)
        scene.area(inner, oval(0, 1.5, 0.62 * plump, 0.5))
    for side in (-1, 1):
        x, y = random.choice(((plump, 1.75), (plump + 0.3, 1.3), (plump + 0.35, 0.95), (0.6 * plump, 1.6)))
        arm = limb([(plump - 0.25, 1.05), ((plump + x) / 2, 1.3), (x, y)], 0.4, 0.38) * (side, 1)
        scene.area(coat if dressed else fur, arm)
        scene.area(fur, oval(side * x, y, 0.24))
    if random.random() < 0.25:
        clothes.scarf(scene, random, 0.98, second, coat)
    scene.add(EARS[kind.ears], colors)
    _head(scene, random, kind, fur, inner)
    if random.random() < 0.35 and kind.ears != "bulges":
        clothes.hat(scene, random, clothes.BIG if kind.ears == "round" else clothes.SMALL, wear, second)


def _head(scene: Scene, random: Random, kind: Species, fur: Color, inner: Color) -> None:
    head = oval(0, 0, random.uniform(1.04, 1.2), random.uniform(0.88, 0.97), random.uniform(2, 2.4))
    dark, iris = mix(fur, SHADE, 0.45), random.choice(EYES)
    if kind.muzzle == "mask":
        head = symmetric("0,-.9 .65,-.75 1.05,-.05 1.3,.4! .75,.72 0,.95")
    scene.area(fur, head)
    with scene.within(head):
        if kind.ears in ("hanging", "horns") and random.random() < 0.5:
            scene.area(dark, oval(0.5, -0.15, 0.5, 0.6))
        if kind.muzzle == "mask":
            scene.area(inner, *both(curve("0,.25! .5,.3 1.5,.15! 1.2,1.2 0,1.2!")), width=0.8)
    if kind.ears == "hanging":
        scene.area(dark, *both(curve(".7,-.8 1.2,-.65 1.5,.1 1.3,.65 .98,.2")))
    if kind.muzzle == "none":
        face(scene, random, fur, iris, 0.46, 0.0, 0.48)
        scene.area(PINK, oval(0, 0.26, 0.13, 0.09), width=0.8)
        for y in (0.3, 0.45):
            scene.line(*both(np.array([(0.7, y), (1.35, y * 1.35 - 0.14)])), width=0.5)
        return
    if kind.muzzle == "wide":
        scene.line(curve("-.75,.2 0,.5 .75,.2", closed=False), width=1.2)
        scene.area(None, *both(oval(0.1, 0.0, 0.04)), width=0)
        return
    eyes(scene, random, fur, iris, 0.46, -0.12, 0.2)
    if kind.muzzle == "snout":
        scene.area(inner, oval(0, 0.38, 0.5, 0.34))
        scene.area(None, *both(oval(0.17, 0.36, 0.07, 0.11)), width=0)
        return
    if kind.muzzle == "oval":
        scene.area(inner, oval(0, 0.42, 0.52, 0.42))
    scene.area(NOSE, oval(0, 0.27, 0.17, 0.12))
    smile(scene, random, 0.5, 0.22)
