"""Non-linearities of a forward pass: recorded wherever they are applied, and measured: dead, saturated, off center."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.watch.recorder import Recorder, for_histogram

NAMES = (
    "relu clamp_min hardtanh leaky_relu elu gelu silu mish hardswish softplus tanh sigmoid hardsigmoid _prelu_kernel"
)
aten = torch.ops.aten
KINDS = {getattr(aten, name): name for name in NAMES.split()}
KINDS |= {getattr(aten, f"{name}_"): name for name in NAMES.split() if hasattr(aten, f"{name}_")}
# Non-linearities that give nothing, and no gradient, below some input; and up to which output that is so.
CAN_DIE = {"relu": 0.0, "relu6": 0.0, "clamp_min": 0.0, "hardswish": 0.0, "gelu": 1e-6, "silu": 1e-6, "mish": 1e-6}
# Where the ends of a bounded non-linearity begin: there its slope is below a fiftieth of that in the middle.
ENDS = {"tanh": (-0.99, 0.99), "hardtanh": (-1.0, 1.0), "sigmoid": (0.01, 0.99), "hardsigmoid": (0.0, 1.0)}
AT_ITS_END = 0.7  # share of a channel's values at an end from which it counts as saturated
MOMENTS = ("before_mean", "before_std", "after_mean", "after_std", "off_center", "offset")
WITH_WEIGHTS = (nn.Linear, nn.modules.conv._ConvNd)


class ActivationEvent(NamedTuple):
    """One non-linearity at work."""

    name: str  # the module's name, or that of the module in whose forward a function was called
    kind: str  # such as relu
    before: Tensor  # its input, (B, C, ...) or (..., C)
    after: Tensor  # its output, of the same shape
    dim: int  # the dimension of the channels
    normed: bool  # whether a norm came right before it
    trained: bool  # whether the layer before it has weights that are trained

    def others(self) -> list[int]:
        """The dimensions that are not the channels'."""
        return [d for d in range(self.before.ndim) if d != self.dim]


class _Mode(TorchDispatchMode):
    # Hooks on modules would miss F.relu in a forward, and see an in-place ReLU's input when it is overwritten already.
    def __init__(self, on_activation: Callable[[str, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.on_activation = on_activation

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
        self.on_activation(kind.removeprefix("_").removesuffix("_kernel"), before, after)
        return after


@contextlib.contextmanager
def record_activations(
    model: nn.Module,
    on_activation: Callable[[ActivationEvent], None],
    order: list[str] | None = None,
    outputs: dict[str, Any] | None = None,
) -> Iterator[None]:
    """Within this context ``on_activation`` is called with every non-linearity in a forward pass of ``model``, right
    after it is computed; it must not keep the tensors.

    Filled are ``order``, with the names of modules that have parameters of their own, in the order in which they run,
    and ``outputs``, with the last output of each direct child of the model: its networks, not their layers.
    """
    stack: list[str] = []
    last: nn.Module | None = None  # layer with weights
    normed = False
    counts: dict[tuple[str, str], int] = {}

    def leave(name: str, module: nn.Module, args: Any, output: Any) -> None:
        nonlocal last, normed
        if stack and stack[-1] == name:
            stack.pop()
        if outputs is not None and name and "." not in name:
            outputs[name] = output
        if order is not None and name not in order and any(True for _ in module.parameters(recurse=False)):
            order.append(name)
        if isinstance(module, WITH_WEIGHTS):
            last, normed = module, False
        elif "Norm" in type(module).__name__:
            normed = True

    def report(kind: str, before: Tensor, after: Tensor) -> None:
        name = stack[-1] if stack else "model"
        module = model.get_submodule(name) if stack and name else model
        if any(True for _ in module.children()) or not stack:
            name = f"{name}.{kind}" if name else kind
        counts[name, kind] = number = counts.get((name, kind), 0) + 1
        trained = last is None or any(p.requires_grad for p in last.parameters(recurse=False))
        linear = isinstance(last, nn.Linear) and before.shape[-1] == last.out_features
        dim = before.ndim - 1 if linear else min(1, before.ndim - 1)
        name = name if number == 1 else f"{name}#{number}"
        on_activation(ActivationEvent(name, kind, before, after, dim, normed, trained))

    with contextlib.ExitStack() as hooks, _Mode(report):
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_pre_hook(lambda *_, name=name: stack.append(name)).remove)
            hooks.callback(module.register_forward_hook(partial(leave, name)).remove)
        yield


class Activations:
    """Measures every non-linearity on the probe.

    - ``dead``: the share of channels behind a ReLU that are zero for every sample, on all processes. A healthy ReLU is
      zero half of the time, but in no channel always; leaky non-linearities cannot die.
    - ``saturated``: the share of channels behind a tanh or a sigmoid that are at an end of its range nearly everywhere.
    - Mean and standard deviation before and after it, and how far the channels' means are off 0 against their spread.

    Logged: ``dead_units/worst`` and ``saturated_units/worst``, the largest share of any layer.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.histograms: dict[str, Tensor] = {}
        # Of the pass in progress: how far each channel is above dead, how much of it is at an end; moments.
        self._above: dict[str, Tensor] = {}
        self._at_end: dict[str, Tensor] = {}
        self._moments: dict[str, Tensor] = {}

    def on_activation(self, event: ActivationEvent) -> None:
        """Measure a non-linearity on both sides."""
        if not torch.is_floating_point(event.before):
            return
        before, after = event.before.float(), event.after.float()
        if event.kind in CAN_DIE:
            self._above[event.name] = event.after.abs().amax(event.others()).float() - CAN_DIE[event.kind]
        elif event.kind in ENDS:
            low, high = ENDS[event.kind]
            at_end = (event.after <= low) | (event.after >= high)
            self._at_end[event.name] = at_end.float().mean(event.others())
        variance, mean = torch.var_mean(before, event.others(), correction=0)
        offset = _offsets(before, event)
        after_variance, after_mean = torch.var_mean(after, correction=0)
        # The spread of all values: that within the channels, and that of their means.
        spread = (variance.mean() + mean.var(correction=0)).sqrt()
        off_center = (offset > 1).float().mean()
        moments = [mean.mean(), spread, after_mean, after_variance.sqrt(), off_center, offset.median()]
        self._moments[event.name] = torch.stack(moments)
        if self.recorder.shows_histograms:
            sides = {f"before/{event.name}": before, f"after/{event.name}": after}
            self.histograms |= {name: for_histogram(values) for name, values in sides.items()}

    def finish(self, step: int) -> None:
        """Count over all processes; every one has to call it."""
        trainer = self.recorder.trainer
        above, at_end = _reduced(trainer, self._above, "max"), _reduced(trainer, self._at_end, "mean")
        dead = {name: (values <= 0).float().mean() for name, values in above.items()}
        saturated = {name: (values > AT_ITS_END).float().mean() for name, values in at_end.items()}
        for table, shares in (("dead", dead), ("saturated", saturated)):
            if shares and trainer.is_global_zero:
                values = torch.stack(list(shares.values()))
                self.recorder.put(list(shares), values, step, table=table)
                self.recorder.put([f"{table}_units/worst"], values.max(), step, log=True)
        if self._moments and trainer.is_global_zero:
            for table, values in zip(MOMENTS, torch.stack(list(self._moments.values())).T, strict=True):
                self.recorder.put(list(self._moments), values, step, table=table)
        self._above, self._at_end, self._moments = {}, {}, {}

    def latest(self) -> dict[str, dict[str, float]]:
        """The newest measurements of each layer, the worst first; logs the histograms of the last pass."""
        histograms, self.histograms = self.histograms, {}
        self.recorder.log_histograms(histograms)
        history = self.recorder.history
        worst = {t: dict(sorted(history.latest(t).items(), key=lambda entry: -entry[1])) for t in ("dead", "saturated")}
        return {**worst, **{table: history.latest(table) for table in MOMENTS}}


def _reduced(trainer: Trainer, vectors: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    """Vectors reduced over all processes, in one transfer: max or mean."""
    if trainer.world_size == 1 or not vectors:
        return vectors
    flat = trainer.strategy.reduce(torch.cat(list(vectors.values())), reduce_op=how)
    return dict(zip(vectors, torch.split(flat, [len(v) for v in vectors.values()]), strict=True))


def _offsets(before: Tensor, event: ActivationEvent) -> Tensor:
    """|mean| / standard deviation of each channel, away from the borders: padding with 0 is a spread of its own.

    0 for a channel without any spread: what is constant is not off center, it does not see its input.
    """
    if before.ndim == 4 and event.dim == 1 and min(before.shape[2:]) >= 8:
        height, width = before.shape[2:]
        before = before[..., height // 8 : height - height // 8, width // 8 : width - width // 8]
    variance, mean = torch.var_mean(before, event.others(), correction=0)
    spread = variance.sqrt()
    return torch.where(spread > 1e-5 * mean.abs(), mean.abs() / spread, 0.0)
