"""Color spaces, on any device and in batches. The conversions are kornia's, imported when first used."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from workbench.errors import UserError

LUMA = (0.299, 0.587, 0.114)


def gray(picture: Tensor) -> Tensor:
    """Brightness of an image, as Pillow's mode "L" and OpenCV have it: the weighted sum of ITU-R BT.601.

    Args:
        image: (B, 3, H, W) RGB; (B, 1, H, W) goes through as it is.

    Returns:
        (B, 1, H, W) on the scale of the image.
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
        float32, (B, 3, H, W): L from 0 (black) to 100 (white); a and b 0 for gray, within -128 to 127.

    Raises:
        UserError: kornia is not installed.
    """
    color = _kornia_color()
    with torch.autocast(rgb.device.type, enabled=False):  # its matrix product would run in 16 bits: steps of 0.5 in L
        return color.rgb_to_lab(rgb.float())


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIELAB -> sRGB, clipped to the colors that a screen has.

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


def lightness_to_gray(lightness: Tensor) -> Tensor:
    """CIELAB's L without a and b -> sRGB, a third of the work of `lab_to_rgb`.

    Source: CIE 15 (L -> relative luminance) and IEC 61966-2-1 (luminance -> sRGB).

    Args:
        lightness: (B, 1, H, W), 0 to 100.

    Returns:
        (B, 1, H, W) in [0, 1]: what red, green and blue all are.
    """
    cubed = ((lightness + 16) / 116).pow(3)
    luminance = torch.where(lightness > 8, cubed, lightness * (27 / 24389))
    bright = 1.055 * luminance.clamp_min(0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(luminance > 0.0031308, bright, 12.92 * luminance).clamp(0, 1)


def _kornia_color() -> ModuleType:
    try:
        import kornia.color
    except ImportError as error:
        raise UserError(
            "Color spaces are kornia's work, and kornia is not installed.\n"
            "Install it: make setup, or pip install -e '.[color]'"
        ) from error
    return kornia.color
