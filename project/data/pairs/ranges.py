"""Numbers that a user gives as one value or as a range to draw from."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from workbench.errors import UserError


def bounds(value: float | tuple[float, float], key: str, least: float, most: float) -> tuple[float, float]:
    """One number or [low, high] as (low, high).

    Args:
        value: what was given.
        key: where it stands in the configuration, behind `data.pairs.`.
        least: smallest number allowed.
        most: largest number allowed.

    Raises:
        UserError: it is neither, or not within the limits.
    """
    found = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(found) != 2 or not least <= found[0] <= found[1] <= most:
        raise UserError(
            f"data.pairs.{key} is {value}: it must be a number, or [low, high], between {least:g} and {most:g}."
        )
    return float(found[0]), float(found[1])


def draw(limits: tuple[float, float], image: Tensor, generator: Generator | None) -> Tensor:
    """One number for each image of the batch, evenly from the range.

    Args:
        limits: (low, high).
        image: (B, C, H, W): how many, of which type and on which device.
        generator: where the numbers come from; None: the device's own.

    Returns:
        (B, 1, 1, 1).
    """
    low, high = limits
    shape = (len(image), 1, 1, 1)
    if low == high:
        return torch.full(shape, low, device=image.device, dtype=image.dtype)
    return torch.rand(shape, generator=generator, device=image.device, dtype=image.dtype) * (high - low) + low
