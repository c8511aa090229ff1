"""Colour spaces, on any device and in batches. The conversions are kornia's, imported when first used."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from project.errors import UserError

LUMA = (0.299, 0.587, 0.114)


def grey(picture: Tensor) -> Tensor:
    """Brightness of a picture, as Pillow's mode "L" and OpenCV have it: the weighted sum of ITU-R BT.601.

    Args:
        picture: (B, 3, H, W) RGB; (B, 1, H, W) goes through as it is.

    Returns:
        (B, 1, H, W) on the scale of the picture.
    """
    if picture.shape[1] == 1:
        return picture
    red, green, blue = picture.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB -> CIELAB (white point D65, 2 degree observer), the same as scikit-image's.

    Args:
        rgb: (B, 3, H, W) in [0, 1].

    Returns:
        float32, (B, 3, H, W): L from 0 (black) to 100 (white); a and b 0 for grey, within -128 to 127.

    Raises:
        UserError: kornia is not installed.
    """
    color = _kornia_color()
    with torch.autocast(rgb.device.type, enabled=False):  # its matrix product would run in 16 bits: steps of 0.4 in L
        return color.rgb_to_lab(rgb.float())


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIELAB -> sRGB, clipped to the colours that a screen has.

    Args:
        lab: (B, 3, H, W): L in 0 to 100, a and b about -128 to 127.

    Returns:
        float32, (B, 3, H, W) in [0, 1].

    Raises:
        UserError: kornia is not installed.
    """
    color = _kornia_color()
    with torch.autocast(lab.device.type, enabled=False):
        return color.lab_to_rgb(lab.float())


def _kornia_color() -> ModuleType:
    try:
        import kornia.color
    except ImportError as error:
        raise UserError(
            "Colour spaces are kornia's work, and kornia is not installed.\n"
            "Install it: make setup, or pip install -e '.[colour]'"
        ) from error
    return kornia.color
