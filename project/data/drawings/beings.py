"""Everything else with a face: spirits and birds of a color of their own, parrots, robots and monsters of any."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from project.data.drawings import clothes
from project.data.drawings.colors import BEAK, CREAM, LEAF, SHADE, free, mix, read, vary
from project.data.drawings.faces import eyes, face
from project.data.drawings.scene import Parts, Scene
from project.data.drawings.shapes import both, box, cloud, curve, limb, oval, star, symmetric


class Being(NamedTuple):
    """One kind.

    Attributes:
        own: Its colors, one of which is taken; empty: any.
        two: A second color of its own; empty: any.
        parts: Drawn over arms and legs; the last one is the body, with the face.
        dressed: Whether it may wear something round the belly.
        hats: What it may wear on its head.
        bird: With a beak, and without arms.
    """

    own: str
    two: str
    parts: Parts
    dressed: bool = True
    hats: dict[str, Parts] = {}  # noqa: RUF012 nobody changes it
    bird: bool = False


EGG = symmetric("0,-1 .75,-.75 1,0 1.15,.9 .75,1.4 0,1.5")
WINGS = (both(curve(".85,.25 1.2,.2 1.75,-.1 1.7,.3 .85,.8")), both(curve(".85,.25 1.2,.2 1.45,.9 1.2,1.2 .85,.8")))
TUFT = [oval(turn / 2, -1.05, 0.14, 0.4, turn=turn) for turn in (-0.5, 0.0, 0.5)]
FIRE = curve("0,-1.9! .35,-1.1 .75,-1.35! .8,-.6 1.1,.2 .75,.9 0,1.1 -.75,.9 -1.1,.2 -.85,-.7 -.6,-1.2! -.35,-.8")
SEEDS = [oval(x, y, 0.07, 0.11) for x, y in ((-0.8, -0.4), (0.8, -0.4), (0, -0.45), (-0.75, 0.35), (0.75, 0.35))]
SPOTS = [oval(*spot) for spot in ((-0.75, -0.85, 0.28), (0.1, -1.3, 0.32), (0.85, -0.85, 0.26))]
BLOTS = [oval(*blot) for blot in ((-0.8, 0.9, 0.25), (0.75, 1.1, 0.3), (0.85, -0.45, 0.22), (-0.7, -0.6, 0.2))]
ARMS = [limb([(x, 0.4), (1.3 * x, 1.0), (1.1 * x, 1.5)], 0.36, 0.26) for x in (-0.75, -0.25, 0.25, 0.75)]

BEINGS = (
    Being("f58a24 f0722a f79f2e", "ffd65a", (("own", FIRE), ("<two", symmetric("0,-.95! .75,.2 .5,.75 0,.9")))),
    Being("4fb4e6 3f97dd 6cc4ee", "d4eefb", (("own", symmetric("0,-1.8! .45,-.85 1.05,.1 .75,.85 0,1.1")),)),
    Being(
        "6bb544 86c24a 4f9d3f",
        "3f7d30",
        (
            ("own", symmetric("0,-1.7! .8,-.9 1.15,.1 .6,.95 0,1.25!")),
            ("<two", limb("0,-1.6 0,-.55", 0.1, 0.14)),
        ),
    ),
    Being("cfdff0 c4d8ee b9d0ea", "ffffff", (("own", cloud(0, 0, 1.35, 1.1, 9, 0.2)),), hats=clothes.SMALL),
    Being("f8cf3a f6c02f", "ffffff", (("own", star(0, 0, 1.65, 0.95, 5)),), dressed=False, hats=clothes.SMALL),
    Being(
        "d8402f c9342c e05a3a",
        "ffffff",
        (
            ("cream", symmetric("0,-.5 .75,-.5 .85,.7 .6,1.15 0,1.2")),
            ("own", symmetric("0,-1.75 .9,-1.5 1.5,-.7 1.35,-.4 0,-.45")),
            ("<two", *SPOTS),
        ),
        dressed=False,
    ),
    Being(
        "f0842a e8731f",
        "7a5634",
        (
            ("two", limb("0,-.75 .15,-1.35", 0.3, 0.24)),
            ("own", *both(oval(0.78, 0.1, 0.6, 0.9)), *both(oval(0.45, 0.1, 0.6, 0.95)), oval(0, 0.1, 0.66, 1.0)),
        ),
        dressed=False,
    ),
    Being(
        "4f9d57 3f8d4f",
        "ec6ead",
        (
            ("own", *both(limb(".6,.4 1.4,.3 1.45,-.5", 0.5, 0.45))),
            ("two", cloud(0.1, -1.5, 0.4, 0.36, 5, 0.3)),
            ("own", symmetric("0,-1.4 .7,-1.1 .9,.2 .8,1.1 0,1.2")),
        ),
    ),
    Being(
        "b98ae0 e08ac8",
        "e3cdf5",
        (("two", *ARMS), ("own", symmetric("0,-1.2 .9,-.8 1.2,.2 1.1,.75 0,.85"))),
        hats=clothes.BIG,
    ),
    Being(
        "e23b46 d42f3f",
        "fcdc78",
        (
            ("leaf", star(0, -0.9, 0.9, 0.35, 7)),
            ("own", symmetric("0,-.8 .8,-.85 1.15,-.2 .65,.85 0,1.25")),
            ("<two", *SEEDS),
        ),
    ),
    Being("f7d046", "f2a83a", (("two", *TUFT), ("two", *WINGS[0]), ("own", EGG)), hats=clothes.SMALL, bird=True),
    Being(
        "8e623e 7a5434",
        "5a3c28",
        (("own", *both(curve(".2,-.7! .95,-1.35! 1,-.3!"))), ("two", *WINGS[1]), ("own", EGG)),
        bird=True,
    ),
    Being("343a4e", "ffffff", (("own", *WINGS[1], EGG), ("<two", oval(0, 0.6, 0.8, 1.0))), hats=clothes.BIG, bird=True),
    *[Being("", "", (("two", *TUFT), ("two", *wing), ("own", EGG)), hats=clothes.SMALL, bird=True) for wing in WINGS],
    Being(
        "", "", (("cream", *both(curve(".4,-.8! .95,-1.6! .9,-.5!"))), ("own", EGG), ("<two", oval(0, 1.2, 0.7, 0.6)))
    ),
    Being("", "", (("two", star(0, -0.7, 1.0, 0.55, 9)), ("own", oval(0, 0.2, 1.15, 1.25)), ("<two", *BLOTS))),
    Being("", "", (("two", *both(oval(0.75, -1.3, 0.24))), ("own", cloud(0, 0.2, 1.3, 1.4, 16, 0.1)))),
    Being(
        "", "", (("two", *both(curve(".8,-.5 1.6,-.9! 1.45,-.2! 1.5,.4! .9,.2"))), ("own", oval(0, 0.2, 1.1, 1.2, 4)))
    ),
    Being(
        "b7c0c8 9fabb8",
        "",
        (
            ("two", limb("0,-.9 0,-1.3", 0.1, 0.1), oval(0, -1.4, 0.2), *both(oval(1.15, -0.1, 0.2, 0.3, 3))),
            ("own", oval(0, 0.1, 1.1, 1.1, 6)),
            ("<two", box(-1, -0.5, 1, 0.25)),
        ),
    ),
)


def being(scene: Scene, random: Random) -> None:
    """One of them."""
    kind = random.choice(BEINGS)
    any_own, any_two, wear, other = free(random, 4)
    own = vary(random, random.choice(read(kind.own))) if kind.own else any_own
    two = read(kind.two)[0] if kind.two else any_two
    if kind.bird:
        scene.area(BEAK, *both(oval(0.4, 1.55, 0.36, 0.17)))
    else:
        up = random.choice((-0.35, 0.3, 0.75))
        limbs = both(limb("0.4,.8 .45,1.5", 0.3, 0.3)) + both(limb([(0.8, 0.3), (1.3, 0.35), (1.45, up)], 0.3, 0.3))
        scene.area(mix(own, SHADE, 0.3), *limbs)
        scene.area(wear, *both(oval(0.55, 1.55, 0.44, 0.25)), *both(oval(1.46, up, 0.27)))
    scene.add(kind.parts, {"own": own, "two": two, "cream": CREAM, "leaf": LEAF})
    body = next(part[-1] for part in reversed(kind.parts) if not part[0].startswith("<"))
    dressed = kind.dressed and random.random() < 0.6
    if dressed:
        with scene.within(body):
            clothes.garment(scene, random, symmetric("0,.6 1.6,.45! 1.6,2! 0,2"), wear, other)
    if kind.bird:
        eyes(scene, random, own, (220, 160, 40), 0.38, -0.15, 0.24)
        scene.area(BEAK, curve("-.26,.12 0,.02 .26,.12 0,.48!"))
    else:
        face(scene, random, own, other, 0.38, -0.15, 0.27)
    if kind.hats and random.random() < 0.4:
        clothes.hat(scene, random, kind.hats, wear, other)
