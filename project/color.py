"""Color spaces, on any device and in batches. The conversions are kornia's, imported when first used."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.errors import UserError


def gray(image: Tensor) -> Tensor:
    """Luma as Pillow's mode "L" and OpenCV have it (ITU-R BT.601): RGB (B, 3, H, W) -> (B, 1, H, W); gray as it is."""
    if image.shape[1] == 1:
        return image
    red, green, blue = image.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB (B, 3, H, W) in [0, 1] -> CIELAB (D65, 2 degree observer), float32, as scikit-image has it.

    L is 0 (black) to 100 (white); a and b are 0 for gray, within -128 to 127.
    """
    return _convert("rgb_to_lab", rgb)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIELAB (B, 3, H, W) -> sRGB in [0, 1], float32, clipped to the colors that a screen has."""
    return _convert("lab_to_rgb", lab)


def _convert(name: str, image: Tensor) -> Tensor:
    try:
        import kornia.color
    except ImportError as error:
        raise UserError("Color spaces need kornia: make setup, or pip install -e '.[color]'") from error
    with torch.autocast(image.device.type, enabled=False):  # a matrix product in 16 bits has steps of 0.5 in L
        return getattr(kornia.color, name)(image.float())
