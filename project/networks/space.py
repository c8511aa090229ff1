"""In which colors a generator answers, and how its answer becomes an image."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from project import color

AB_SCALE = 110.0
"""The a and b of sRGB colors lie between -108 and 99, so y = ab / 110 lies in [-1, 1]."""
AB_STD = 0.15
"""The standard deviation of y: a and b of photographs vary by some 15 units around the neutral 0."""


class Space(ABC):
    """What stands between an image and the tensor y that a generator gives, a discriminator sees and the losses
    compare.

    Attributes:
        channels: Channels of y.
        keeps_lightness: Whether the lightness of the answer is copied from the input's first channel.
    """

    channels: int
    keeps_lightness: bool

    @abstractmethod
    def encode(self, rgb: Tensor) -> Tensor:
        """Image -> y: (B, 3, H, W) in [0, 1] -> (B, channels, H, W), float32."""

    @abstractmethod
    def decode(self, y: Tensor, condition: Tensor) -> Tensor:
        """y -> image.

        Args:
            y: (B, channels, H, W), as a generator gives it.
            condition: (B, C, H, W), what the generator was given.

        Returns:
            (B, 3, H, W) float32, around [0, 1].
        """

    @abstractmethod
    def normalization(self, target: tuple[list[float], list[float]]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of y's channels, from those of the target images' channels."""


class RGB(Space):
    """Red, green and blue: y is the image itself."""

    channels = 3
    keeps_lightness = False

    def encode(self, rgb: Tensor) -> Tensor:
        return rgb.float()

    def decode(self, y: Tensor, condition: Tensor) -> Tensor:
        return y.float()

    def normalization(self, target: tuple[list[float], list[float]]) -> tuple[list[float], list[float]]:
        return target


class Lab(Space):
    """CIELAB: y is (a, b) / 110; the lightness is that of the input, whose first channel is L / 100.

    Colors that no screen can show are clipped to the nearest that it can, which changes their lightness a little.
    """

    channels = 2
    keeps_lightness = True

    def encode(self, rgb: Tensor) -> Tensor:
        return color.rgb_to_lab(rgb)[:, 1:] / AB_SCALE

    def decode(self, y: Tensor, condition: Tensor) -> Tensor:
        return color.lab_to_rgb(torch.cat([condition[:, :1].float() * 100, y.float() * AB_SCALE], dim=1))

    def normalization(self, target: tuple[list[float], list[float]]) -> tuple[list[float], list[float]]:
        # Not measured: images whose colors are few or faint would blow up the generator's first answers, and with
        # one scale for all data sets a network that starts from another's weights starts from the same colors.
        return [0.0] * self.channels, [AB_STD] * self.channels


SPACES: dict[str, type[Space]] = {"lab": Lab, "rgb": RGB}
