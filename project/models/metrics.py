"""How good an image is, counted image by image, beside the answer that does nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

PERFECT_PSNR = 100.0
"""dB for an image without any error, whose PSNR would be infinite and spoil every mean."""


def as_saved(picture: Tensor) -> Tensor:
    """Clamped to [0, 1] and rounded to 8 bits, as an image file holds it; the same shape, float."""
    return (picture.float().clamp(0, 1) * 255).round() / 255


class ImageMean(Metric):
    """The mean over images of one value an image; every image counts once, in any batch and on any rank.

    A metric of your own: inherit, and write ``values``.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, C, H, W) tensors around [0, 1] -> (B,), one value an image."""
        raise NotImplementedError

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count the images of a batch: two (B, C, H, W) tensors around [0, 1]."""
        values = self.values(output.float(), target.float())
        self.total += values.sum()
        self.count += len(values)

    def compute(self) -> Tensor:
        """The mean over all images so far, a scalar."""
        return self.total / self.count


class PSNR(ImageMean):
    """Peak signal-to-noise ratio in dB, over all pixels and channels of an image; 100 dB where there is no error."""

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, C, H, W) tensors around [0, 1] -> (B,) dB."""
        psnr = peak_signal_noise_ratio(output, target, data_range=1.0, reduction="none", dim=(1, 2, 3))
        return psnr.clamp(max=PERFECT_PSNR)


class SSIM(ImageMean):
    """Structural similarity (Wang et al. 2004), at most 1; Gaussian window of sigma 1.5, that is 11 pixels.

    An image with a side below 6 pixels cannot hold that window: it gets the largest that its shorter side holds.
    """

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """Two (B, C, H, W) tensors around [0, 1] -> (B,)."""
        # torchmetrics pads by int(3.5 sigma + 0.5) reflected pixels, of which there are one less than the side has.
        sigma = min(1.5, max(min(output.shape[-2:]) - 1, 0.1) / 3.5)
        ssim = structural_similarity_index_measure(output, target, sigma=sigma, data_range=1.0, reduction="none")
        return ssim.reshape(-1)


class Scores(nn.Module):
    """Each metric twice: for the network's answer and for doing nothing.

    Args:
        metrics: Name -> metric with ``update(output, target)``.
    """

    def __init__(self, metrics: dict[str, Metric]) -> None:
        super().__init__()
        self.answer = nn.ModuleDict({name: metric.clone() for name, metric in metrics.items()})
        self.baseline = nn.ModuleDict({name: metric.clone() for name, metric in metrics.items()})

    def update(self, output: Tensor, target: Tensor, baseline: Tensor) -> None:
        """Count a batch.

        Args:
            output: (B, C, H, W), the network's answer; judged as it would be saved: clamped and of 8 bits.
            target: (B, C, H, W) in [0, 1].
            baseline: (B, C, H, W), the do-nothing answer; judged as it is, since noise is defined without clipping.
        """
        # Metrics from elsewhere may take tensors apart with view(), which fails in channels_last order.
        output, target, baseline = as_saved(output).contiguous(), target.contiguous(), baseline.contiguous()
        for name, metric in self.answer.items():
            metric.update(output, target)
            other = self.baseline[name]
            # Metrics from elsewhere may refuse values outside [0, 1].
            other.update(baseline if isinstance(other, ImageMean) else baseline.clamp(0, 1), target)

    def compute(self) -> dict[str, Tensor]:
        """Name -> value and name_baseline -> value, over all ranks; then start anew."""
        values = {name: metric.compute() for name, metric in self.answer.items()}
        values |= {f"{name}_baseline": metric.compute() for name, metric in self.baseline.items()}
        self.reset()
        return values

    def reset(self) -> None:
        """Forget what was counted."""
        for metric in (*self.answer.values(), *self.baseline.values()):
            metric.reset()
