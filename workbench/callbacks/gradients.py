"""Norms of gradients, measured once where two callbacks want them of the same optimizer step."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

_LEFT: WeakKeyDictionary[Optimizer, dict[int, tuple[int, int, Tensor]]] = WeakKeyDictionary()


def measure(parameters: list[Parameter]) -> list[Tensor]:
    """The norm of each tensor's gradient; all of them have one."""
    return list(torch._foreach_norm([parameter.grad for parameter in parameters]))


def leave(optimizer: Optimizer, parameters: list[Parameter], norms: list[Tensor]) -> None:
    """Leave norms for the callback that comes next in the same step."""
    _LEFT[optimizer] = {id(p): (id(p.grad), p.grad._version, norm) for p, norm in zip(parameters, norms, strict=True)}


def take(optimizer: Optimizer) -> dict[int, tuple[int, int, Tensor]]:
    """What was left, once; for `found_or_measured`."""
    return _LEFT.pop(optimizer, {})


def found_or_measured(parameters: list[Parameter], left: dict[int, tuple[int, int, Tensor]]) -> list[Tensor]:
    """The norms of gradients: those that were left, unless a gradient has changed since, else measured now."""
    known = [left.get(id(parameter)) for parameter in parameters]
    same = all(
        entry is not None and entry[:2] == (id(p.grad), p.grad._version)
        for p, entry in zip(parameters, known, strict=True)
    )
    return [entry[2] for entry in known] if same else measure(parameters)
