"""The color space of y, which a generator outputs, a discriminator sees and the losses compare."""

from __future__ import annotations

import torch
from torch import Tensor

from project import color
from project.networks.normalize import Statistics

AB_SCALE = 110.0  # a and b of sRGB colors lie between -108 and 99, so y = ab / 110 lies in [-1, 1]
AB_STD = 0.15  # of y: a and b of photographs vary by some 15 units around the neutral 0


class RGB:
    """Red, green and blue: y is the image itself."""

    channels = 3
    keeps_lightness = False

    def encode(self, rgb: Tensor) -> Tensor:
        """Image (B, 3, H, W) in [0, 1] -> y (B, channels, H, W), float32."""
        return rgb.float()

    def decode(self, y: Tensor, condition: Tensor) -> Tensor:
        """y, and what the generator was given -> image (B, 3, H, W), float32, around [0, 1]."""
        return y.float()

    def normalization(self, target: Statistics) -> Statistics:
        """Mean and standard deviation of y's channels, from those of the target images."""
        return target


class Lab:
    """CIELAB: y is (a, b) / 110; the lightness is that of the input, whose first channel is L / 100."""

    channels = 2
    keeps_lightness = True

    def encode(self, rgb: Tensor) -> Tensor:
        return color.rgb_to_lab(rgb)[:, 1:] / AB_SCALE

    def decode(self, y: Tensor, condition: Tensor) -> Tensor:
        return color.lab_to_rgb(torch.cat([condition[:, :1].float() * 100, y.float() * AB_SCALE], dim=1))

    def normalization(self, target: Statistics) -> Statistics:
        # Not measured: faint colors would blow up the generator's first outputs, and weights fit all data sets.
        return [0.0] * self.channels, [AB_STD] * self.channels


SPACES = {"lab": Lab, "rgb": RGB}
