"""What is exported of a model: images in [0, 1] in, images in [0, 1] out, and nothing of the training."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from project.networks.normalize import input_normalization
from workbench.errors import UserError


class Answer(nn.Module):
    """The network that answers, with what makes an image of its answer.

    Args:
        model: Of this project's kinds: with a ``network``, or a ``generator`` and its ``space``.

    Raises:
        UserError: A model of another kind.
    """

    def __init__(self, model: LightningModule) -> None:
        super().__init__()
        network = getattr(model, "network", None) or getattr(model, "generator", None)
        if not isinstance(network, nn.Module):
            raise UserError(
                f"export is for models with a network or a generator, and {type(model).__name__} has none of these.\n"
                "Inherit from project.models.ImageRestorer or project.models.GANColorizer."
            )
        self.network = network
        self.space = getattr(model, "space", None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W) in [0, 1]."""
        y = self.network(x)
        return (y if self.space is None else self.space.decode(y, x)).clamp(0, 1)


def input_channels(network: nn.Module, data: dict[str, object]) -> int:
    """The channels that a network takes: as its normalization has them, as it says, or as the data's images have.

    Args:
        network: The one that answers.
        data: The data part of the run's configuration.
    """
    normalize = input_normalization(network)
    if normalize is not None:
        return normalize.mean.shape[1]
    return int(getattr(network, "in_channels", None) or data.get("channels", 3))
