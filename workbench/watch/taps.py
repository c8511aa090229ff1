"""Listens to every non-linearity of a forward pass, whether it is a module or a function called in ``forward``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
KINDS = {
    aten.relu: "relu",
    aten.relu_: "relu",
    aten.clamp_min: "clamp_min",
    aten.clamp_min_: "clamp_min",
    aten.hardtanh: "hardtanh",
    aten.hardtanh_: "hardtanh",
    aten.leaky_relu: "leaky_relu",
    aten.leaky_relu_: "leaky_relu",
    aten._prelu_kernel: "prelu",
    aten.elu: "elu",
    aten.elu_: "elu",
    aten.gelu: "gelu",
    aten.silu: "silu",
    aten.silu_: "silu",
    aten.mish: "mish",
    aten.mish_: "mish",
    aten.hardswish: "hardswish",
    aten.hardswish_: "hardswish",
    aten.softplus: "softplus",
    aten.tanh: "tanh",
    aten.tanh_: "tanh",
    aten.sigmoid: "sigmoid",
    aten.sigmoid_: "sigmoid",
    aten.hardsigmoid: "hardsigmoid",
    aten.hardsigmoid_: "hardsigmoid",
}
WITH_WEIGHTS = (nn.Linear, nn.modules.conv._ConvNd)


class Seen(NamedTuple):
    """One non-linearity at work.

    Attributes:
        name: Where: the module's name, or that of the module in whose forward a function was called.
        kind: Such as relu.
        before: What it was given, (B, C, ...) or (..., C).
        after: What came out, of the same shape.
        dim: The dimension of the channels.
        normed: Whether a norm came right before it.
        trained: Whether the layer before it has weights that are trained.
    """

    name: str
    kind: str
    before: Tensor
    after: Tensor
    dim: int
    normed: bool
    trained: bool

    def by_channel(self, values: Tensor) -> Tensor:
        """(C, n): the values of each channel in a row, of a tensor shaped like ``before``."""
        return values.movedim(self.dim, 0).flatten(1)

    def others(self) -> list[int]:
        """The dimensions that are not the channels'."""
        return [d for d in range(self.before.ndim) if d != self.dim % self.before.ndim]


class _Listener(TorchDispatchMode):
    # Hooks on modules would miss F.relu in a forward, and see an in-place ReLU's input when it is overwritten already.
    def __init__(self, hear: Callable[[str, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.hear = hear

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kind = KINDS.get(getattr(func, "overloadpacket", None))
        if kind is None or not args or not isinstance(args[0], Tensor):
            return func(*args, **(kwargs or {}))
        if kind == "hardtanh" and len(args) > 1 and args[1] >= 0:
            kind = "relu6"
        elif kind == "clamp_min" and not (isinstance(args[1], int | float) and args[1] == 0):
            return func(*args, **(kwargs or {}))
        before = args[0].clone() if func._schema.is_mutable else args[0]
        after = func(*args, **(kwargs or {}))
        self.hear(kind, before, after)
        return after


@contextlib.contextmanager
def listening(
    model: nn.Module,
    hear: Callable[[Seen], None],
    order: list[str] | None = None,
    answers: dict[str, Any] | None = None,
) -> Iterator[None]:
    """Within this context every non-linearity in a forward pass of ``model`` is heard.

    Args:
        model: Its modules give the places their names; hooks are there only within the context.
        hear: Called with each, right after it is computed; must not keep the tensors.
        order: Filled with the names of modules that have parameters of their own, in the order in which they run.
        answers: Filled with what the model's own parts gave last, by their names: its networks, not their layers.
    """
    stack: list[str] = []
    last: dict[str, Any] = {"module": None, "norm": False}
    counts: dict[tuple[str, str], int] = {}

    def enter(name: str) -> Callable[..., None]:
        return lambda module, args: stack.append(name)

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if stack and stack[-1] == name:
                stack.pop()
            if answers is not None and name and "." not in name:
                answers[name] = output
            own = any(True for _ in module.parameters(recurse=False))
            norm = "Norm" in type(module).__name__
            if own and order is not None and name not in order:
                order.append(name)
            if norm or isinstance(module, WITH_WEIGHTS):
                last["norm"] = norm
                if isinstance(module, WITH_WEIGHTS):
                    last["module"] = module

        return hook

    def place(kind: str, before: Tensor, after: Tensor) -> None:
        name = stack[-1] if stack else "model"
        module = model.get_submodule(name) if stack and name else model
        if any(True for _ in module.children()) or not stack:
            name = f"{name}.{kind}" if name else kind
        counts[name, kind] = number = counts.get((name, kind), 0) + 1
        before_it = last["module"]
        trained = before_it is None or any(p.requires_grad for p in before_it.parameters(recurse=False))
        name = name if number == 1 else f"{name}#{number}"
        hear(Seen(name, kind, before, after, _channels(before, before_it), last["norm"], trained))

    handles = []
    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave(name))]
    try:
        with _Listener(place):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _channels(x: Tensor, before_it: nn.Module | None) -> int:
    """Which dimension holds the channels: the last behind a Linear, else the second."""
    if isinstance(before_it, nn.Linear) and x.shape[-1] == before_it.out_features:
        return x.ndim - 1
    return min(1, x.ndim - 1)
