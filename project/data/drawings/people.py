"""People: heads with hair of many cuts, on shoulders or on a small body."""

from __future__ import annotations

from random import Random

import numpy as np

from project.data.drawings import clothes
from project.data.drawings.colors import BLUSH, EYES, FREE, HAIRS, SKINS, Color, free, mix, vary
from project.data.drawings.faces import face
from project.data.drawings.scene import Scene
from project.data.drawings.shapes import both, cloud, curve, limb, oval, star, symmetric

BEHIND = (  # hair behind the head
    (),
    (symmetric("0,-1.15 .8,-.98 1.15,-.3 1.1,.3 .8,.6 0,.5"),),
    (symmetric("0,-1.15 .8,-.95 1.2,-.2 1.25,.6 1.15,1.6! 0,1.5"),),
    (symmetric("0,-1.15 .8,-.98 1.24,-.2 1.34,.5 1.1,1! 0,.9"),),
    (cloud(0, -0.12, 1.45, 1.4, 12, 0.13),),
    (cloud(0, 0.25, 1.5, 1.5, 14, 0.14),),
    both(curve(".8,-.5 1.45,-.75 1.8,.1 1.55,.95! 1.2,.4")),
    both(oval(0.78, -0.95, 0.45)),
    (oval(0, -1.25, 0.5, 0.42),),
    (curve(".4,-.95 1.3,-1.15 1.85,-.2 1.6,.95! 1.3,.1 .8,-.4"),),
    (star(0, -0.15, 1.6, 1.12, 11),),
    tuple(lock for y in (1.35, 1.0, 0.65, 0.3) for lock in both(oval(1.08, y, 0.24, 0.27))),
)
FRINGES = (  # the lower edge of the hair on the forehead, from the right to the left
    "1.06,.1 .86,-.2! .4,-.26 -.4,-.26 -.86,-.2! -1.06,.1",
    "1.06,.1! .8,-.55! .55,-.15! .3,-.6! 0,-.15! -.3,-.6! -.6,-.12! -.8,-.5! -1.06,.1!",
    "1.06,0! .6,-.7! .3,-.2! -.1,-.75! -.4,-.25! -.65,-.65! -1.06,0!",
    "1.06,.1! .75,-.25 0,-.5 -.5,-.85 -.7,-.5 -1.06,.1!",
    "1.06,.1! .8,-.4 .5,-.15 .15,-.5 -.2,-.2 -.6,-.45 -1.06,.1!",
    "1.06,.15! .8,-.35 .3,-.6 0,-.9! -.3,-.6 -.8,-.35 -1.06,.15!",
    "1.06,.1! .8,-.5 0,-.72 -.8,-.5 -1.06,.1!",
)
HANDS = ((1.05, 1.6), (1.2, 1.3), (1.35, 0.95), (0.95, 1.75))


def person(scene: Scene, random: Random) -> None:
    """Somebody, down to the chest or down to the feet."""
    skin = vary(random, random.choice(SKINS))
    hair = vary(random, random.choice(HAIRS if random.random() < 0.5 else FREE))
    shirt, second, legs, wear = free(random, 4)
    bald = random.random() < 0.04
    if not bald:
        size = np.array((random.uniform(0.95, 1.08), random.uniform(0.92, 1.12)))
        scene.area(hair, *(lock * size for lock in random.choice(BEHIND)))
    if random.random() < 0.6:
        _bust(scene, random, skin, shirt, second)
    else:
        _body(scene, random, skin, shirt, second, legs)
    head = symmetric("0,-1 .72,-.72 1,-.02 .74,.74 0,1") * (1, random.uniform(0.95, 1.06))
    scene.area(skin, *both(oval(1.0, 0.12, 0.2, 0.26)), head)
    if random.random() < 0.08:
        with scene.within(head):
            scene.area(hair, symmetric("0,.42 .5,.36 1.2,0! 1.2,1.3! 0,1.3"))
    eye, nose = random.uniform(0.1, 0.24), random.random()
    if nose < 0.3:
        scene.area(mix(skin, BLUSH, 0.5), oval(0, eye + 0.2, 0.1, 0.08), width=0.7)
    elif nose < 0.75:
        scene.line(np.add(curve("-.03,.14 .08,.24 -.03,.28", closed=False), (0, eye)), width=0.8)
    iris = random.choice((*EYES, second))
    face(scene, random, skin, iris, random.uniform(0.36, 0.46), eye, random.uniform(0.54, 0.62))
    if random.random() < 0.12:
        clothes.glasses(scene, 0.42, eye)
    if not bald:
        _fringe(scene, random, hair)
    if random.random() < 0.5:
        clothes.hat(scene, random, random.choice((clothes.BIG, clothes.SMALL)), wear, second)


def _fringe(scene: Scene, random: Random, hair: Color) -> None:
    turn, high = np.linspace(np.pi, 2 * np.pi, 26), random.uniform(1.2, 1.32)
    top = np.stack([1.06 * np.cos(turn), 0.1 + high * np.sin(turn)], axis=1)
    fringe = np.concatenate([top, curve(random.choice(FRINGES), closed=False)])
    scene.area(hair, fringe)
    if random.random() < 0.3:
        scene.area(hair, *both(curve("1.06,-.35 1.18,.3 1,.95! .84,.2")))
    if random.random() < 0.4:
        with scene.within(fringe):
            scene.line(*both(curve(".5,-.95 .66,-.75 .72,-.5", closed=False)), width=0.6)


def _bust(scene: Scene, random: Random, skin: Color, shirt: Color, second: Color) -> None:
    wide, extra = random.uniform(1.1, 1.35), random.random()
    clothes.garment(scene, random, symmetric("0,.95 .35,1 .88,1.25 1,1.6 1,2.05! 0,2.05") * (wide, 1), shirt, second)
    scene.area(skin, symmetric("0,.6 .3,.7! .32,1.05 0,1.3"))
    if extra < 0.2:
        clothes.scarf(scene, random, 1.08, second, shirt)
    elif extra < 0.45:
        scene.area(second, *both(curve("0,1.35! .3,.9! .62,1.12! .35,1.5!")))
    scene.line(*both(np.array([(wide - 0.32, 1.65), (wide - 0.3, 2.05)])), width=0.8)


def _body(scene: Scene, random: Random, skin: Color, shirt: Color, second: Color, legs: Color) -> None:
    dress = random.random() < 0.4
    foot, bottom = random.uniform(0.34, 0.42), random.uniform(1.95, 2.2)
    scene.area(skin if dress else legs, *both(limb([(foot, 1.4), (foot, bottom)], 0.56, 0.5)))
    scene.area(second, *both(oval(foot + 0.08, bottom + 0.12, 0.4, 0.22)))
    for side in (-1, 1):
        x, y = random.choice(HANDS)
        scene.area(skin, oval(side * x, y, 0.24))
        scene.area(shirt, limb([(0.5, 1.08), (0.35 + x / 2, 0.52 + y / 2), (x, y)], 0.46, 0.4) * (side, 1))
    if dress:
        outline = symmetric("0,.75 .52,.85 .66,1.25 1,1.9! 0,2") * (random.uniform(0.95, 1.2), 1)
    else:
        outline = symmetric("0,.75 .55,.85 .72,1.2 .78,1.58! 0,1.64")
        scene.area(legs, symmetric("0,1.4 .76,1.4 .78,1.85! .1,1.9! 0,1.76!"))
    clothes.garment(scene, random, outline, shirt, second)
    if random.random() < 0.2:
        clothes.scarf(scene, random, 1.0, second, legs)
