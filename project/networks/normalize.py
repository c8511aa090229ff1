"""Mean and standard deviation as buffers: a network, and every export of it, takes and gives images in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from workbench.errors import UserError

Statistics = tuple[Sequence[float], Sequence[float]]  # mean and std, a value per channel, for pixels in [0, 1]


class Normalize(nn.Module):
    """Standardize an image's channels, and undo it: mean and std are one value or one per channel, for [0, 1]."""

    def __init__(self, channels: int, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.set(mean, std)

    def set(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        """Replace the statistics, in place."""
        mean, std = (torch.as_tensor(v, dtype=torch.float32).flatten() for v in (mean, std))
        channels = self.mean.shape[1]
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise UserError(f"The normalization's {name} has {len(values)} values for {channels} channels.")
        if not bool((std > 0).all()):
            raise UserError(f"The normalization's std must be above 0 in every channel, but it is {std.tolist()}.")
        self.mean.copy_(mean.view(1, -1, 1, 1))
        self.std.copy_(std.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) image in [0, 1] -> zero mean and unit variance over the training data."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Undo ``forward``: (B, C, H, W) normalized -> image in [0, 1]."""
        return x * self.std + self.mean


class Normalized(nn.Module):
    """Any network, of (B, in_channels, H, W) -> (B, out_channels, H', W'), between a normalization and its inverse."""

    def __init__(self, network: nn.Module, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        self.normalize_input = Normalize(in_channels)
        self.network = network
        self.normalize_output = Normalize(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Images in [0, 1] -> images around [0, 1]."""
        return self.normalize_output.inverse(self.network(self.normalize_input(x)))


def _normalizations(network: nn.Module, *names: str) -> Iterator[Normalize]:
    for name, part in network.named_modules():
        if name.rpartition(".")[2] in names and isinstance(part, Normalize):
            yield part


def input_normalization(network: nn.Module) -> Normalize | None:
    """What a network's input passes first: the data's normalization, or that of pretrained weights; None: none."""
    return next(_normalizations(network, "normalize_input", "normalize_encoder"), None)


def set_normalization(network: nn.Module, input: Statistics, output: Statistics | None = None) -> None:
    """Set every Normalize inside that is called ``normalize_input`` or ``normalize_output``."""
    for name, statistics in (("normalize_input", input), ("normalize_output", output)):
        for part in _normalizations(network, name) if statistics is not None else ():
            part.set(*statistics)


def channels_of(network: nn.Module, side: str) -> int | None:
    """How many channels a network takes ("in") or gives ("out"), where it says so or normalizes them."""
    part = getattr(network, f"normalize_{side}put", None)
    normalized = part.mean.numel() if isinstance(part, Normalize) else None
    return getattr(network, f"{side}_channels", normalized)
