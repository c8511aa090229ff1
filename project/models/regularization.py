"""Penalties on the size of the weights, kept apart from the data loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def penalised_weights(network: nn.Module) -> list[nn.Parameter]:
    """The trainable kernels and matrices; no biases, norm gains or PReLU slopes, whose size is not complexity."""
    return [p for p in network.parameters() if p.requires_grad and p.ndim >= 2]


def l1_penalty(weights: list[nn.Parameter]) -> Tensor:
    """The sum of |w| over all weights, a scalar."""
    return torch.stack([w.abs().sum() for w in weights]).sum()


def l2_penalty(weights: list[nn.Parameter]) -> Tensor:
    """Half the sum of w^2 over all weights, a scalar; its gradient is w, the weight decay of plain SGD."""
    return torch.stack([w.square().sum() for w in weights]).sum() / 2
