"""Random changes of the training images: on uint8, in the workers, each draw from a seed of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from random import Random
from typing import Any

import numpy as np

from project.data.images import Window, center_window
from workbench.errors import UserError

ALBUMENTATIONS = "2.0.8"  # the last release under the MIT license
Sides = tuple[np.ndarray, np.ndarray | None]  # an image and its target, uint8 (H, W, C)


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
    """Cuts a random crop (None: the whole image) and changes it, an image and its target alike; masks by nearest
    neighbor. All that is random follows from the seed.
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

    def draw(self, read: Callable[[Window | None], Sides], height: int, width: int, seed: int) -> Sides:
        """Read a random part of an image of that size, and of its target, and change both: uint8 (crop, crop, C).

        Only what is needed is read, so that all costs by the crop, not by the image. The seed: 0 to 2**63 - 1.
        """
        self._random.seed(seed)
        self._state["state"]["key"][0] = seed
        self._bits.state = self._state
        window = None
        if self.crop is not None:
            side = self.augment.side(self.crop)
            top = self._random.randrange(max(height - side, 0) + 1)
            left = self._random.randrange(max(width - side, 0) + 1)
            window = slice(top, top + side), slice(left, left + side)
        image, target = read(window)
        sides = {"image": image} if target is None else {"image": image, "target": target}
        if self._move is not None:
            sides = self._move(**sides)
        if self.crop is not None:
            sides = {name: side[center_window(*side.shape[:2], self.crop)] for name, side in sides.items()}
        sides = self._flip(sides)
        image = sides["image"]  # colors change in it alone: of one folder both sides are made from it later
        return image if self._recolor is None else self._recolor(image=image)["image"], sides.get("target")

    def _flip(self, sides: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Flips and quarter turns as views: through Albumentations they took as long as reading a small crop."""
        self._random.random()  # Albumentations' Compose drew it: results of earlier versions repeat
        for axis, chance in ((1, self.augment.hflip), (0, self.augment.vflip)):
            probability = 0.5 if chance is True else float(chance)
            if probability >= 1 or (probability > 0 and self._random.random() < probability):
                sides = {name: np.flip(side, axis) for name, side in sides.items()}
        turns = self._random.randint(0, 3) if self.augment.quarter_turns else 0
        return {name: np.rot90(side, turns) for name, side in sides.items()}

    def _build(self) -> tuple[Any, Any]:
        """Albumentations' pipelines that move pixels and that change colors; None where nothing is asked."""
        augment, move, recolor = self.augment, None, None
        if not (augment.moves or augment.brightness or augment.contrast):
            return move, recolor  # the import takes a second
        _check_albumentations()
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)  # its threads and torch's fight over the cores
        generator = np.random.Generator(self._bits)
        if augment.moves:
            seen = 1.0 if self.crop is None else augment.side(self.crop) / self.crop  # the crop and its margin
            limits = augment.rotate_degrees, augment.shear_degrees, augment.shift / seen
            rotate, shear, shift = ((-most, most) for most in limits)
            how = {"rotate": rotate, "shear": {"x": shear, "y": shear}, "translate_percent": shift}
            affine = A.Affine(scale=1.0, border_mode=cv2.BORDER_REFLECT_101, p=1.0, **how)
            move = A.Compose([affine], additional_targets={"target": "mask" if self.masks else "image"})
            move.set_random_state(generator, self._random)
        if augment.brightness or augment.contrast:
            brightness, contrast = ((-most, most) for most in (augment.brightness, augment.contrast))
            recolor = A.Compose([A.RandomBrightnessContrast(brightness, contrast, p=1.0)])
            recolor.set_random_state(generator, self._random)
        return move, recolor


def _check_albumentations() -> None:
    names = ("albumentations", "albumentationsx")
    installed = {name: one.version for name in names for one in metadata.distributions(name=name)}
    if installed != {"albumentations": ALBUMENTATIONS}:
        raise UserError(
            f"data.augment needs albumentations {ALBUMENTATIONS}; installed: {installed or 'none'}. Its successor "
            "albumentationsx is AGPL and has\nthe same import name. Uninstall it, then "
            f"pip install albumentations=={ALBUMENTATIONS}"
        )
