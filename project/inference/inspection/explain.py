"""What of its input a unit answers to: integrated gradients (Sundararajan et al. 2017), by Captum."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from torch import Tensor

from workbench.errors import UserError

STEPS = 16
"""Points on the way from the baseline to the input; the sum is then a few percent off at most."""
AT_ONCE = 8
"""Of those points: what the memory has to hold."""


def check_captum() -> None:
    """Say before a long pass over the images what is missing.

    Raises:
        UserError: Captum is not installed.
    """
    if importlib.util.find_spec("captum") is None:
        raise UserError(
            "What a feature map answers to is found by Captum, which is not installed.\n"
            "Install it: make setup, or pip install -e '.[inspect]'. Without these images: --maps 0"
        )


def explain(features: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, unit: tuple[int, int, int]) -> Tensor:
    """How much each pixel raises (above 0) or lowers (below 0) one unit's activation.

    The contributions of all pixels sum to the activation less that on the baseline.

    Args:
        features: (B, C, H, W) -> feature maps (B, maps, h, w).
        x: (1, C, H, W), the input.
        baseline: Like x, the input that says nothing.
        unit: The feature map, and the row and column in it.

    Returns:
        (H, W), summed over the channels.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(features)
    parts = method.attribute(x, baselines=baseline, target=unit, n_steps=STEPS, internal_batch_size=AT_ONCE)
    return parts[0].detach().sum(dim=0).float()
