"""Random changes of the training images: on uint8, in the workers, each draw from a seed of its own."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib import metadata
from random import Random
from typing import Any

import numpy as np

from project.data.images import Window
from workbench.errors import UserError

ALBUMENTATIONS = "2.0.8"  # the last release under the MIT license; albumentationsx has the same import name and is AGPL
COLORS = ("brightness", "contrast")


@dataclass(frozen=True)
class Augment:
    """Random changes in training alone. 0 or false switches a change off.

    Args:
        hflip: mirror left and right; true is a chance of 0.5, a number is the chance.
        vflip: mirror up and down, likewise. Off for faces, digits, scenes.
        quarter_turns: rotate by 0, 90, 180 or 270 degrees, each as likely. Off where up and down mean something.
        rotate_degrees: rotate by up to so many degrees either way (0 to 180).
        shift: move by up to this share of the crop's side either way (0 to 0.5).
        shear_degrees: slant by up to so many degrees along each axis (0 to 30).
        brightness: add up to this share of the full range either way (0 to 1); the input of a pair alone.
        contrast: scale the values by up to 1 plus or minus this (0 to 1); the input of a pair alone.
    """

    hflip: bool | float = True
    vflip: bool | float = True
    quarter_turns: bool = True
    rotate_degrees: float = 0.0
    shift: float = 0.0
    shear_degrees: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        limits = {"rotate_degrees": 180, "shift": 0.5, "shear_degrees": 30}
        for name, value in vars(self).items():
            if not 0 <= value <= limits.get(name, 1):
                raise UserError(f"data.augment.{name} is {value}: it must lie between 0 and {limits.get(name, 1)}.")

    @property
    def moves(self) -> bool:
        """Whether pixels are interpolated, so that the crop needs a margin."""
        return bool(self.rotate_degrees or self.shift or self.shear_degrees)

    def side(self, crop: int) -> int:
        """Side of the square to cut out, so that after every possible move the middle `crop` pixels are image.

        The move maps the crop's corners by a rotation (infinity norm cos + sin) and the inverse of a shear
        (at most 1 / (1 - tan)); 2 more pixels serve the interpolation.
        """
        if not self.moves:
            return crop
        angle = math.radians(min(self.rotate_degrees, 45))
        spread = (math.cos(angle) + math.sin(angle)) / (1 - math.tan(math.radians(self.shear_degrees)))
        return math.ceil(crop * (spread + 2 * self.shift)) + 2


class Augmenter:
    """Cuts a random crop and changes it, an image and its target alike. All that is random follows from the seed.

    Args:
        augment: which changes, and how strong.
        crop: side of the crop in pixels; None keeps the whole image.
        masks: whether targets are class numbers: nearest neighbor then.
    """

    def __init__(self, augment: Augment, crop: int | None, masks: bool = False) -> None:
        self.augment, self.crop, self.masks = augment, crop, masks
        # Both random sources that Albumentations reads, set anew for every draw: making new ones costs several
        # times the flips, while a counter-based generator is set by writing its key.
        self._random, self._bits = Random(), np.random.Philox(key=0)
        self._state = self._bits.state
        self._move, self._recolor = self._build()

    def __reduce__(self) -> tuple[Any, ...]:  # Albumentations' pipelines are not made for pickling
        return Augmenter, (self.augment, self.crop, self.masks)

    def begin(self, height: int, width: int, seed: int) -> Window | None:
        """Start a draw (seed 0 to 2**63 - 1), of which `change` is the second half: between them the image is read.

        Returns:
            What to cut out first, so that all that follows costs by the crop, not by the image; None without a crop.
        """
        self._random.seed(seed)
        self._state["state"]["key"][0] = seed
        self._bits.state = self._state
        if self.crop is None:
            return None
        side = self.augment.side(self.crop)
        top = self._random.randrange(max(height - side, 0) + 1)
        left = self._random.randrange(max(width - side, 0) + 1)
        return slice(top, top + side), slice(left, left + side)

    def change(self, image: np.ndarray, target: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Change what was cut out: uint8 (H, W, C) and (H, W, C') or None -> (crop, crop, C) and (crop, crop, C')."""
        sides = {"image": image} if target is None else {"image": image, "target": target}
        if self._move is not None:
            sides = self._move(**sides)
        if self.crop is not None:
            sides = {name: side[center_window(*side.shape[:2], self.crop)] for name, side in sides.items()}
        image = sides["image"]  # colors change in it alone: of one folder both sides are made from it later
        return image if self._recolor is None else self._recolor(image=image)["image"], sides.get("target")

    def _build(self) -> tuple[Any, Any]:
        """What moves pixels and what changes colors; None where nothing is asked."""
        augment = self.augment
        hflip, vflip = (0.5 if chance is True else float(chance) for chance in (augment.hflip, augment.vflip))
        move, recolor = None, None
        if not augment.moves and (hflip or vflip or augment.quarter_turns):
            move = Symmetries(hflip, vflip, augment.quarter_turns, self._random)
        if not (augment.moves or augment.brightness or augment.contrast):
            return move, recolor
        A, cv2 = _import_albumentations()
        generator = np.random.Generator(self._bits)
        if augment.moves:
            shift: dict[str, Any] = {"translate_percent": (-augment.shift, augment.shift)}
            if self.crop is not None:  # a share of the crop, while the transform sees the crop and its margin
                pixels = math.ceil(augment.shift * self.crop)
                shift = {"translate_px": {"x": (-pixels, pixels), "y": (-pixels, pixels)}}
            rotate = (-augment.rotate_degrees, augment.rotate_degrees)
            shear = dict.fromkeys("xy", (-augment.shear_degrees, augment.shear_degrees))
            border = cv2.BORDER_REFLECT_101
            affine = A.Affine(scale=1.0, rotate=rotate, shear=shear, border_mode=border, p=1.0, **shift)
            flips = [kind(p=p) for kind, p in ((A.HorizontalFlip, hflip), (A.VerticalFlip, vflip)) if p]
            turns = [A.RandomRotate90(p=1.0)] if augment.quarter_turns else []
            move = A.Compose([affine, *flips, *turns], additional_targets={"target": "mask" if self.masks else "image"})
            move.set_random_state(generator, self._random)
        if augment.brightness or augment.contrast:
            limits = {f"{name}_limit": (-getattr(augment, name), getattr(augment, name)) for name in COLORS}
            recolor = A.Compose([A.RandomBrightnessContrast(p=1.0, **limits)])
            recolor.set_random_state(generator, self._random)
        return move, recolor


class Symmetries:
    """Albumentations' ``Compose([HorizontalFlip, VerticalFlip, RandomRotate90])``, number by number, as views.

    Its import takes a second, and its checks took as long as reading and changing a small crop.
    """

    def __init__(self, hflip: float, vflip: float, quarter_turns: bool, random: Random) -> None:
        self.flips = [(axis, chance) for axis, chance in ((1, hflip), (0, vflip)) if chance > 0]
        self.quarter_turns = quarter_turns
        self.random = random

    def __call__(self, **sides: np.ndarray) -> dict[str, np.ndarray]:
        random = self.random
        random.random()  # Compose draws whether to do anything at all
        for axis, chance in self.flips:
            if chance >= 1 or random.random() < chance:
                sides = {name: side[:, ::-1] if axis else side[::-1] for name, side in sides.items()}
        turns = random.randint(0, 3) if self.quarter_turns else 0
        return {name: np.rot90(side, turns) for name, side in sides.items()} if turns else sides


def center_window(height: int, width: int, side: int) -> Window:
    """Rows and columns of the middle, at most `side` pixels high and wide."""
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return slice(top, top + side), slice(left, left + side)


def _import_albumentations() -> tuple[Any, Any]:
    names = ("albumentations", "albumentationsx")
    installed = {name: one.version for name in names for one in metadata.distributions(name=name)}
    if installed != {"albumentations": ALBUMENTATIONS}:
        raise UserError(
            f"data.augment needs albumentations {ALBUMENTATIONS}, the last release under the MIT license; installed: "
            f"{installed or 'none'}.\nIts successor albumentationsx is AGPL and has the same import name. Uninstall "
            f"it, then\npip install albumentations=={ALBUMENTATIONS}"
        )
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the network for a newer version
    import albumentations
    import cv2

    cv2.setNumThreads(0)  # its threads and torch's fight over the cores
    return albumentations, cv2
