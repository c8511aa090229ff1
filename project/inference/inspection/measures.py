"""Simple measures of an image, and which of them go with the error (Spearman's rank correlation)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from project.color import LUMA
from project.models.metrics import colorfulness

EDGE = 0.1
"""A change of brightness is an edge from this share of the whole range on."""
FINE = 0.25
"""Cycles a pixel from which a frequency counts as high: half of what pixels can hold."""
FEWEST = 10
"""Images below which a rank correlation says nothing."""


def edge_density(luma: Tensor) -> float:
    """Share of the pixels where the brightness changes by EDGE or more, by Sobel's filter; (H, W) in [0, 1]."""
    across = luma.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]) / 4  # a step of h gives h
    kernels = torch.stack([across, across.T])[:, None]
    change = F.conv2d(F.pad(luma[None, None], (1, 1, 1, 1), mode="replicate"), kernels)[0].norm(dim=0)
    return float((change >= EDGE).float().mean())


def high_frequencies(luma: Tensor) -> float:
    """Share of the power, but for the mean, at FINE cycles a pixel or more, under a Hann window; 0 for a plain image.

    Args:
        luma: (H, W) in [0, 1].
    """
    windows = [torch.hann_window(side + 2, periodic=False).to(luma)[1:-1] for side in luma.shape]
    window = windows[0][:, None] * windows[1]
    mean = (luma * window).sum() / window.sum()
    power = torch.fft.fft2((luma - mean) * window).abs().square()
    frequencies = [torch.fft.fftfreq(side).to(luma) for side in luma.shape]
    fine = (frequencies[0][:, None].square() + frequencies[1].square()).sqrt() >= FINE
    total = float(power.sum())
    return float(power[fine].sum()) / total if total > 1e-9 else 0.0


def _luma(picture: Tensor) -> Tensor:
    if picture.shape[0] != 3:
        return picture.mean(dim=0)
    return (picture * picture.new_tensor(LUMA)[:, None, None]).sum(dim=0)


MEASURES: dict[str, Callable[[Tensor], float]] = {
    "edge_density": lambda picture: edge_density(_luma(picture)),
    "contrast": lambda picture: float(_luma(picture).std(correction=0)),
    "brightness": lambda picture: float(_luma(picture).mean()),
    "colorfulness": lambda picture: float(colorfulness(picture[None])[0]),
    "high_frequencies": lambda picture: high_frequencies(_luma(picture)),
    "pixels": lambda picture: float(picture[0].numel()),
}
"""Name -> measure of an image (1 or 3, H, W) in [0, 1]. Contrast is the standard deviation of the brightness;
colorfulness is that of Hasler and Suesstrunk (2003)."""


def rank_correlations(errors: Sequence[float], measures: dict[str, Sequence[float]]) -> dict[str, float]:
    """Spearman's rho of each measure with the error, in [-1, 1]; NaN where one of the two is the same for all.

    Args:
        errors: One number an image.
        measures: Name -> one number an image.

    Returns:
        Strongest first.
    """
    from torchmetrics.functional.regression import spearman_corrcoef

    target = torch.tensor(errors, dtype=torch.float64)
    found = {}
    for name, values in measures.items():
        given = torch.tensor(values, dtype=torch.float64)
        constant = len(given.unique()) < 2 or len(target.unique()) < 2
        found[name] = math.nan if constant else float(spearman_corrcoef(given, target))
    return dict(sorted(found.items(), key=lambda item: -abs(item[1]) if item[1] == item[1] else 1))


def what_chance_gives(pictures: int) -> float:
    """The rho that, in 19 of 20 sets of so many images, none of MEASURES reaches by chance alone, roughly."""
    return 2.64 / math.sqrt(max(1, pictures - 1))  # 1 - 0.05 / 2 / 6 of the normal distribution


def in_words(correlations: dict[str, float], pictures: int) -> str:
    """What the correlations say, in a sentence or two."""
    if pictures < FEWEST:
        return f"{pictures} images are too few to tell what goes with the error; from {FEWEST} on it is said here."
    limit = what_chance_gives(pictures)
    telling = {name: rho for name, rho in correlations.items() if abs(rho) > limit}
    if not telling:
        return f"Nothing measured here goes with the error (|rho| up to {limit:.2f} may be chance)."
    parts = [f"{'more' if rho > 0 else 'less'} {name.replace('_', ' ')} ({rho:+.2f})" for name, rho in telling.items()]
    return f"Worse with {', '.join(parts)}; |rho| up to {limit:.2f} may be chance."
