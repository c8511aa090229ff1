"""How good images are, image by image: fidelity (PSNR, SSIM) and color, beside the do-nothing output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from project.color import rgb_to_lab
from workbench.errors import UserError

PERFECT_PSNR = 100.0  # dB for an image without any error, whose PSNR would be infinite and spoil every mean


def as_saved(image: Tensor) -> Tensor:
    """Clamped to [0, 1] and rounded to 8 bits, as an image file holds it."""
    return (image.float().clamp(0, 1) * 255).round() / 255


def as_color(image: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) around [0, 1] -> (B, 3, H, W), as a color file holds it: of 8 bits, gray three times."""
    if image.shape[1] not in (1, 3):
        raise UserError(f"model.metrics: a color metric is for 1 or 3 channels, and these are {image.shape[1]}.")
    return as_saved(image).expand(-1, 3, -1, -1)


class RatioOfSums(Metric):
    """``part / whole``, both summed over batches and ranks."""

    full_state_update = False
    higher_is_better = True

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        for name in ("part", "whole"):
            self.add_state(name, torch.tensor(start), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        return self.part / self.whole


class ImageMean(RatioOfSums):
    """The mean over images of one value per image, in any batch and on any rank; inherit, and write ``values``."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, C, H, W) tensors around [0, 1] -> (B,), one value per image."""
        raise NotImplementedError

    def update(self, output: Tensor, target: Tensor) -> None:
        values = self.values(output.float(), target.float())
        self.part += values.sum()
        self.whole += len(values)


class PSNR(ImageMean):
    """Peak signal-to-noise ratio in dB, over all pixels and channels of an image; 100 dB where there is no error."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        psnr = peak_signal_noise_ratio(output, target, data_range=1.0, reduction="none", dim=(1, 2, 3))
        return psnr.clamp(max=PERFECT_PSNR)


class SSIM(ImageMean):
    """Structural similarity (Wang et al. 2004), at most 1; a side has at least 6 pixels (a window of sigma 1.5)."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        return structural_similarity_index_measure(output, target, data_range=1.0, reduction="none").reshape(-1)


class PixelAccuracy(RatioOfSums):
    """Percentage of the pixels whose color is right within a threshold (Nazeri et al. 2018).

    CIELAB of both 8-bit images is rounded to whole numbers; a pixel is right where |dL| <= t, |da| <= 2.2 t and
    |db| <= 2.2 t, with the threshold t in CIELAB's units. Each pixel of all images counts once.
    """

    def __init__(self, threshold: float = 2.0) -> None:
        super().__init__(start=0)  # whole numbers: float32 counts pixels exactly only up to 2^24
        self.threshold = threshold

    def update(self, output: Tensor, target: Tensor) -> None:
        output, target = (rgb_to_lab(as_color(image)).round() for image in (output, target))
        lightness, a, b = (output - target).abs().unbind(dim=1)
        limit = 2.2 * self.threshold
        right = (lightness <= self.threshold) & (a <= limit) & (b <= limit)
        self.part += 100 * right.sum()
        self.whole += right.numel()


def colorfulness(image: Tensor) -> Tensor:
    """How colorful images are to people: sigma_rgyb + 0.3 mu_rgyb (Hasler and Suesstrunk 2003, M3).

    With rg = R - G and yb = (R + G) / 2 - B of each pixel on the scale of 0 to 255, sigma_rgyb is the length of their
    standard deviations and mu_rgyb that of their means. 0 is gray, 33 moderately and 82 highly colorful.
    (B, 1 or 3, H, W) around [0, 1] -> (B,).
    """
    red, green, blue = (as_color(image) * 255).flatten(2).unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
    sigma = opponents.std(dim=2, correction=0).square().sum(dim=1).sqrt()
    mu = opponents.mean(dim=2).square().sum(dim=1).sqrt()
    return sigma + 0.3 * mu


class Colorfulness(ImageMean):
    """Mean colorfulness of the outputs (Hasler and Suesstrunk 2003), see :func:`colorfulness`."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        return colorfulness(output)


class ColorfulnessRatio(RatioOfSums):
    """Colorfulness of the outputs over that of the targets, summed over all images; not finite for gray targets."""

    def update(self, output: Tensor, target: Tensor) -> None:
        self.part += colorfulness(output).sum()
        self.whole += colorfulness(target).sum()


class Scores(nn.Module):
    """Each metric twice: for the model's output and for the do-nothing output, the baseline."""

    def __init__(self, metrics: dict[str, Metric]) -> None:
        super().__init__()
        self.output = nn.ModuleDict({name: metric.clone() for name, metric in metrics.items()})
        self.baseline = nn.ModuleDict({name: metric.clone() for name, metric in metrics.items()})

    def update(self, output: Tensor, target: Tensor, baseline: Tensor) -> None:
        """Add a batch of (B, C, H, W): the output as saved, of 8 bits; the baseline as it is, its noise not clipped."""
        # Metrics from elsewhere may call view(), which fails in channels_last order, or refuse values outside [0, 1].
        output, target, baseline = as_saved(output).contiguous(), target.contiguous(), baseline.contiguous()
        for metric in self.output.values():
            metric.update(output, target)
        for metric in self.baseline.values():
            metric.update(baseline if isinstance(metric, ImageMean) else baseline.clamp(0, 1), target)

    def compute(self) -> dict[str, Tensor]:
        """name -> value and name_baseline -> value, over all ranks; then start over."""
        values = {name: metric.compute() for name, metric in self.output.items()}
        values |= {f"{name}_baseline": metric.compute() for name, metric in self.baseline.items()}
        for metric in (*self.output.values(), *self.baseline.values()):
            metric.reset()
        return values
