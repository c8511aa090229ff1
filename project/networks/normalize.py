"""Mean and standard deviation as buffers: a network, and every export of it, takes and gives images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workbench.errors import UserError


class Normalize(nn.Module):
    """Standardize the channels of an image, and undo it.

    Starts as the identity (mean 0, standard deviation 1) unless told otherwise.

    Args:
        channels: Number of channels, C.
        mean: One value for all channels or one a channel, for pixels in [0, 1].
        std: One value for all channels or one a channel, above 0.

    Raises:
        UserError: When the number of values is neither 1 nor ``channels``, or a ``std`` is not above 0.
    """

    def __init__(self, channels: int, mean: float | list[float] = 0.0, std: float | list[float] = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.set(mean, std)

    def set(self, mean: float | Sequence[float] | Tensor, std: float | Sequence[float] | Tensor) -> None:
        """Take other statistics, in place.

        Args:
            mean: One value for all channels or one a channel, for pixels in [0, 1].
            std: The same, above 0.

        Raises:
            UserError: When the number of values is neither 1 nor the number of channels, or a ``std`` is not above 0.
        """
        mean, std = (torch.as_tensor(v, dtype=torch.float32).flatten() for v in (mean, std))
        channels = self.mean.shape[1]
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise UserError(
                    f"The normalization's {name} has {len(values)} values, the network {channels} channels there.\n"
                    "Make the network's in_channels/out_channels and the data's channels (a noise map adds one) agree."
                )
        if not bool((std > 0).all()):
            raise UserError(f"The normalization's std must be above 0 in every channel, but it is {std.tolist()}.")
        self.mean.copy_(mean.view(1, -1, 1, 1))
        self.std.copy_(std.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) image in [0, 1] -> the same shape, zero mean and unit variance over the training data."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Undo ``forward``: (B, C, H, W) normalized -> image in [0, 1]."""
        return x * self.std + self.mean


def input_normalization(network: nn.Module) -> Normalize | None:
    """What a network's input passes first: the data's normalization, or that of pretrained weights; None: none."""
    for name, part in network.named_modules():
        if name.rpartition(".")[2] in ("normalize_input", "normalize_encoder") and isinstance(part, Normalize):
            return part
    return None


class Normalized(nn.Module):
    """Any network between a normalization and its inverse: images in [0, 1] in and out.

    Args:
        network: Takes (B, in_channels, H, W), gives (B, out_channels, H', W'), both normalized.
        in_channels: Channels that the network takes.
        out_channels: Channels that it gives.
    """

    def __init__(self, network: nn.Module, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        self.normalize_input = Normalize(in_channels)
        self.network = network
        self.normalize_output = Normalize(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) in [0, 1] -> (B, out_channels, H', W') around [0, 1]."""
        return self.normalize_output.inverse(self.network(self.normalize_input(x)))
