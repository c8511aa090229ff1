"""Non-linearities of a forward pass, wherever they are applied: how many units are dead, saturated, off center."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from workbench.findings import Activation
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


class ActivationPass(TorchDispatchMode):
    """Measures every non-linearity of a forward pass within this context.

    - ``dead``: the share of channels behind a ReLU that are zero for every sample, on all processes. A healthy ReLU is
      zero half of the time, but in no channel always. ``dead_units/worst`` is logged, the largest share of any layer.
    - ``saturated``: the share of channels behind a tanh or a sigmoid that are at an end of its range nearly everywhere,
      and ``saturated_units/worst``.
    - Mean and standard deviation before and after it, and how far the channels' means are off 0 against their spread.

    Hooks on modules alone would miss F.relu in a forward, and see an in-place ReLU's input when it is overwritten.
    """

    def __init__(self, model: nn.Module, keeps_histograms: bool = False) -> None:
        super().__init__()
        self.model, self.keeps_histograms = model, keeps_histograms
        self.places: dict[str, Activation] = {}  # by the module, or the module in whose forward a function is called
        self.histograms: dict[str, Tensor] = {}
        self.order: dict[str, int] = {}  # of modules with parameters of their own: when each has run
        self._above: dict[str, Tensor] = {}  # how far each channel is above dead
        self._at_end: dict[str, Tensor] = {}  # how much of each channel is at an end
        self._moments: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        self._stack: list[str] = []  # modules whose forward runs
        self._layer: nn.Module | None = None  # the last one with weights
        self._normed = False

    def __enter__(self) -> ActivationPass:
        for name, module in self.model.named_modules():
            self._hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._stack.append(name)))
            self._hooks.append(module.register_forward_hook(partial(self._leave, name)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)

    def _leave(self, name: str, module: nn.Module, *_: Any) -> None:
        if self._stack and self._stack[-1] == name:
            self._stack.pop()
        if next(module.parameters(recurse=False), None) is not None:
            self.order.setdefault(name, len(self.order))
        if isinstance(module, WITH_WEIGHTS):
            self._layer, self._normed = module, False
        elif "Norm" in type(module).__name__:
            self._normed = True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kind = KINDS.get(getattr(func, "overloadpacket", None))
        if kind == "clamp_min" and not (isinstance(args[1], int | float) and args[1] == 0):
            kind = None
        elif kind == "hardtanh" and len(args) > 1 and args[1] >= 0:
            kind = "relu6"
        if kind is None or not args or not isinstance(args[0], Tensor):
            return func(*args, **(kwargs or {}))
        before = args[0].clone() if func._schema.is_mutable else args[0]
        after = func(*args, **(kwargs or {}))
        self._measure(kind.removeprefix("_").removesuffix("_kernel"), before, after)
        return after

    def _measure(self, kind: str, before: Tensor, after: Tensor) -> None:
        """Of input and output, (B, C, ...) or (..., C)."""
        layer = self._layer
        linear = isinstance(layer, nn.Linear) and before.shape[-1] == layer.out_features
        dim = before.ndim - 1 if linear else min(1, before.ndim - 1)
        others = [d for d in range(before.ndim) if d != dim]
        trained = layer is None or any(p.requires_grad for p in layer.parameters(recurse=False))
        name = self._name(kind)
        self.places[name] = Activation(kind, before.shape[dim], self._normed, trained, name.split(".")[0])
        if not torch.is_floating_point(before):
            return
        if kind in CAN_DIE:
            self._above[name] = after.abs().amax(others).float() - CAN_DIE[kind]
        elif kind in ENDS:
            low, high = ENDS[kind]
            self._at_end[name] = ((after <= low) | (after >= high)).float().mean(others)
        before, after = before.float(), after.float()
        variance, mean = torch.var_mean(before, others, correction=0)
        after_variance, after_mean = torch.var_mean(after, correction=0)
        # The spread of all values: that within the channels, and that of their means.
        spread = (variance.mean() + mean.var(correction=0)).sqrt()
        offset = _offsets(before, dim, others)
        off_center = (offset > 1).float().mean()
        moments = [mean.mean(), spread, after_mean, after_variance.sqrt(), off_center, offset.median()]
        self._moments[name] = torch.stack(moments)
        if self.keeps_histograms:
            self.histograms |= {f"before/{name}": for_histogram(before), f"after/{name}": for_histogram(after)}

    def _name(self, kind: str) -> str:
        name = self._stack[-1] if self._stack else "model"
        module = self.model.get_submodule(name) if self._stack and name else self.model
        if any(True for _ in module.children()) or not self._stack:
            name = f"{name}.{kind}" if name else kind
        same = sum(1 for known in self.places if known.partition("#")[0] == name)
        return f"{name}#{same + 1}" if same else name

    def put(self, recorder: Recorder, step: int) -> None:
        """Count over all processes, which all call this, and record it."""
        trainer, recorder.histograms = recorder.trainer, self.histograms
        above, at_end = _reduced(trainer, self._above, "max"), _reduced(trainer, self._at_end, "mean")
        if not trainer.is_global_zero:
            return
        dead = {name: (values <= 0).float().mean() for name, values in above.items()}
        saturated = {name: (values > AT_ITS_END).float().mean() for name, values in at_end.items()}
        for table, shares in (("dead", dead), ("saturated", saturated)):
            if shares:
                values = torch.stack(list(shares.values()))
                recorder.put(list(shares), values, step, table=table)
                recorder.put([f"{table}_units/worst"], values.max(), step, log=True)
        if self._moments:
            for table, values in zip(MOMENTS, torch.stack(list(self._moments.values())).T, strict=True):
                recorder.put(list(self._moments), values, step, table=table)


def _reduced(trainer: Trainer, vectors: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    """Vectors reduced over all processes, in one transfer: max or mean."""
    if trainer.world_size == 1 or not vectors:
        return vectors
    flat = trainer.strategy.reduce(torch.cat(list(vectors.values())), reduce_op=how)
    return dict(zip(vectors, torch.split(flat, [len(v) for v in vectors.values()]), strict=True))


def _offsets(before: Tensor, dim: int, others: list[int]) -> Tensor:
    """|mean| / standard deviation of each channel, away from the borders, where padding with 0 is a spread of its own;
    0 where there is no spread: what is constant does not see its input."""
    if before.ndim == 4 and dim == 1 and min(before.shape[2:]) >= 8:
        height, width = before.shape[2:]
        before = before[..., height // 8 : height - height // 8, width // 8 : width - width // 8]
    variance, mean = torch.var_mean(before, others, correction=0)
    spread = variance.sqrt()
    return torch.where(spread > 1e-5 * mean.abs(), mean.abs() / spread, 0.0)
