"""Random changes of the training images: on uint8, in the workers, each draw from a number of its own."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from project.data.images import Window
from project.data.symmetries import Symmetries
from workbench.errors import UserError


@dataclass(frozen=True)
class Augment:
    """What is changed at random in training; validation and test never are. 0 or false switches a change off.

    Args:
        hflip: mirror left and right; true is a chance of 0.5, a number is the chance.
        vflip: mirror up and down; true is a chance of 0.5, a number is the chance. Off for faces, digits, scenes.
        quarter_turns: turn by 0, 90, 180 or 270 degrees, each as likely. Off where up and down mean something.
        rotate_degrees: turn by up to so many degrees either way (0 to 180).
        shift: move by up to this share of the crop's side either way (0 to 0.5).
        shear_degrees: slant by up to so many degrees along each axis (0 to 30).
        brightness: add up to this share of the full range either way (0 to 1). Never touches a folder pair's target.
        contrast: scale the values by up to 1 plus or minus this (0 to 1). Never touches a folder pair's target.

    Raises:
        UserError: a value outside its range.
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
        """Whether pixels are moved by other than flips and quarter turns, so that a margin round the crop is wanted."""
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
    """Cuts a random crop and changes it, an image and its partner alike. All that is random follows from the seed.

    Args:
        augment: which changes, and how strong.
        crop: side of the crop in pixels; None keeps the whole image.
    """

    def __init__(self, augment: Augment, crop: int | None) -> None:
        self.augment = augment
        self.crop = crop
        self._tools: tuple[Any, Any, _Draws] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Each worker builds its own pipeline: it is not made for pickling, and a started process must not share one.
        return {**self.__dict__, "_tools": None}

    def __call__(self, image: np.ndarray, target: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Augments one image.

        Args:
            image: uint8, (H, W, C).
            target: uint8, (H, W, C'), its partner or None.
            seed: from 0 to 2**63 - 1.

        Returns:
            Image and partner, (crop, crop, C), or turned whole images where there is no crop.
        """
        window = self.begin(*image.shape[:2], seed)
        if window is not None:
            image, target = image[window], None if target is None else target[window]
        return self.change(image, target)

    def begin(self, height: int, width: int, seed: int) -> Window | None:
        """Starts a draw, of which `change` is the second half; in between the image can be read.

        Args:
            height: of the image.
            width: of the image.
            seed: from 0 to 2**63 - 1.

        Returns:
            What to cut out of it: first of all, so that what follows costs by the crop, not by the image, and only
            the crop's pages are read. None where there is no crop.
        """
        if self._tools is None:
            draws = _Draws()
            self._tools = (*_pipelines(self.augment, self.crop, draws), draws)
        draws = self._tools[2]
        draws.reseed(seed)
        if self.crop is None:
            return None
        side = self.augment.side(self.crop)
        top = draws.python.randrange(max(height - side, 0) + 1)
        left = draws.python.randrange(max(width - side, 0) + 1)
        return slice(top, top + side), slice(left, left + side)

    def change(self, image: np.ndarray, target: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Ends a draw that `begin` has started: changes what was cut out."""
        moving, coloring, _ = self._tools
        if moving is not None and target is None:
            image = moving(image=image)["image"]
        elif moving is not None:
            moved = moving(image=image, target=target)
            image, target = moved["image"], moved["target"]
        if self.crop is not None:
            image = center_crop(image, self.crop)
            target = None if target is None else center_crop(target, self.crop)
        if coloring is not None:
            # The image alone: of one folder it is the clean one, from which both sides are made; of a pair the input.
            image = coloring(image=image)["image"]
        return image, target


def center_crop(image: np.ndarray, side: int) -> np.ndarray:
    """The middle of (H, W, C), at most `side` pixels high and wide; a view."""
    return image[center_window(*image.shape[:2], side)]


def center_window(height: int, width: int, side: int) -> Window:
    """Rows and columns of the middle, at most `side` pixels high and wide."""
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return slice(top, top + side), slice(left, left + side)


class _Draws:
    """Both random sources that Albumentations reads, set anew for every draw.

    Making new ones and handing them to every transform costs several times the flips themselves; a counter-based
    generator is set by writing its key.
    """

    def __init__(self) -> None:
        self.python = random.Random()
        self._bits = np.random.Philox(key=0)
        self._start = self._bits.state
        self.numpy = np.random.Generator(self._bits)

    def reseed(self, seed: int) -> None:
        self.python.seed(seed)
        self._start["state"]["key"][0] = seed
        self._bits.state = self._start


def _pipelines(augment: Augment, crop: int | None, draws: _Draws) -> tuple[Any, Any]:
    """What moves pixels and what changes colors; None where nothing is asked."""
    flips = [0.5 if chance is True else float(chance) for chance in (augment.hflip, augment.vflip)]
    symmetric = any(flips) or augment.quarter_turns
    symmetries = Symmetries(*flips, augment.quarter_turns, draws.python) if symmetric else None
    if not (augment.moves or augment.brightness or augment.contrast):
        return symmetries, None
    moving, coloring = _albumentations(augment, crop, flips, draws)
    return moving if augment.moves else symmetries, coloring


def _albumentations(augment: Augment, crop: int | None, flips: list[float], draws: _Draws) -> tuple[Any, Any]:
    """Pipelines that move pixels and that change colors; None where nothing is asked."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the network for a newer version
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)  # its threads and torch's fight over the cores
    moving: list[Any] = []
    if augment.moves:  # flips and turns alone need no Albumentations
        shift: dict[str, Any] = {"translate_percent": (-augment.shift, augment.shift)}
        if crop is not None:  # a share of the crop, while the transform sees the crop and its margin
            pixels = math.ceil(augment.shift * crop)
            shift = {"translate_px": {"x": (-pixels, pixels), "y": (-pixels, pixels)}}
        moving.append(
            A.Affine(
                scale=1.0,
                rotate=(-augment.rotate_degrees, augment.rotate_degrees),
                shear=dict.fromkeys("xy", (-augment.shear_degrees, augment.shear_degrees)),
                border_mode=cv2.BORDER_REFLECT_101,
                p=1.0,
                **shift,
            )
        )
        kinds = zip(flips, (A.HorizontalFlip, A.VerticalFlip), strict=True)
        moving += [flip(p=chance) for chance, flip in kinds if chance]
        if augment.quarter_turns:
            moving.append(A.RandomRotate90(p=1.0))
    coloring: list[Any] = []
    if augment.brightness or augment.contrast:
        coloring.append(
            A.RandomBrightnessContrast(
                brightness_limit=(-augment.brightness, augment.brightness),
                contrast_limit=(-augment.contrast, augment.contrast),
                p=1.0,
            )
        )
    built = []
    for transforms in (moving, coloring):
        pipeline = A.Compose(transforms, additional_targets={"target": "image"}) if transforms else None
        if pipeline is not None:
            pipeline.set_random_state(draws.numpy, draws.python)
        built.append(pipeline)
    return built[0], built[1]
