"""How right and how strong colors are: PSNR alone prefers brown to a bold guess."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from project.color import rgb_to_lab
from project.models.metrics import ImageMean, as_saved
from workbench.errors import UserError

COLOR_LENIENCY = 2.2
"""a and b may be off by this many times what the lightness may be off by."""


def as_color(picture: Tensor) -> Tensor:
    """An image as a color file holds it: clamped to [0, 1], of 8 bits, and gray as three equal channels.

    Args:
        image: (B, 3, H, W), or (B, 1, H, W) for gray, around [0, 1].

    Returns:
        float32, (B, 3, H, W) in [0, 1].

    Raises:
        UserError: The image has another number of channels.
    """
    if picture.shape[1] not in (1, 3):
        raise UserError(
            f"A color metric measures images of 1 or 3 channels, and these have {picture.shape[1]}.\n"
            "Leave it out of model.metrics, or set data.channels (1 gray, 3 color)."
        )
    return as_saved(picture).expand(-1, 3, -1, -1)


def colorfulness(picture: Tensor) -> Tensor:
    """How colorful images are, as people judge it: sigma_rgyb + 0.3 mu_rgyb (Hasler and Suesstrunk 2003, M3).

    With rg = R - G and yb = (R + G) / 2 - B of each pixel on the scale of 0 to 255, sigma_rgyb is the length of their
    standard deviations and mu_rgyb that of their means. 0 is gray, 33 moderately and 82 highly colorful.

    Args:
        image: (B, 3, H, W), or (B, 1, H, W) for gray, around [0, 1].

    Returns:
        (B,), one value an image.

    Raises:
        UserError: The image has another number of channels.
    """
    red, green, blue = (as_color(picture) * 255).flatten(2).unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
    sigma = opponents.std(dim=2, correction=0).square().sum(dim=1).sqrt()
    mu = opponents.mean(dim=2).square().sum(dim=1).sqrt()
    return sigma + 0.3 * mu


class PixelAccuracy(Metric):
    """Percentage of the pixels whose color is right within a threshold (Nazeri et al. 2018).

    Of both images as they would be saved, in 8 bits, CIELAB is rounded to whole numbers; a pixel is right where
    |dL| <= t, |da| <= 2.2 t and |db| <= 2.2 t. Each pixel of all images counts once.

    Args:
        threshold: t, in units of CIELAB's lightness, which runs from 0 to 100.

    Raises:
        UserError: The threshold is negative.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, threshold: float = 2.0) -> None:
        super().__init__()
        if threshold < 0:
            raise UserError(f"PixelAccuracy: threshold must not be negative; it is {threshold}.")
        self.threshold = threshold
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("pixels", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count the pixels of a batch: two (B, 3, H, W) tensors around [0, 1]; (B, 1, H, W) is gray."""
        lightness, a, b = (_whole_lab(output) - _whole_lab(target)).abs().unbind(dim=1)
        limit = COLOR_LENIENCY * self.threshold
        right = (lightness <= self.threshold) & (a <= limit) & (b <= limit)
        self.right += right.sum()
        self.pixels += right.numel()

    def compute(self) -> Tensor:
        """Percent, a scalar."""
        return 100 * self.right / self.pixels


class Colorfulness(ImageMean):
    """Mean colorfulness of the outputs (Hasler and Suesstrunk 2003), see :func:`colorfulness`."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, 3, H, W) tensors around [0, 1], or (B, 1, H, W) for gray -> (B,)."""
        return colorfulness(output)


class ColorfulnessRatio(Metric):
    """Colorfulness of the outputs over that of the targets: 1 is as colorful as the truth, below 1 paler.

    The ratio of the sums over all images, so that a nearly gray target does not outweigh all others. Where the
    targets are all gray there is no ratio: NaN.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("outputs", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("targets", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch: two (B, 3, H, W) tensors around [0, 1]; (B, 1, H, W) is gray."""
        self.outputs += colorfulness(output).sum()
        self.targets += colorfulness(target).sum()

    def compute(self) -> Tensor:
        """The ratio, a scalar."""
        return torch.where(self.targets > 0, self.outputs / self.targets, torch.nan)


def _whole_lab(picture: Tensor) -> Tensor:
    return rgb_to_lab(as_color(picture)).round()
