"""What is wrong with the weights before they are trained, and with who trains them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.images import listed
from workbench.findings.checks.subject import Part, Subject
from workbench.findings.rule import Level

LAYERS = (_ConvNd, nn.Linear)


class WeightsConstant(Check):
    """Units that all start the same, and so learn the same."""

    code = "weights-constant"
    floor = Level.WIRING
    flat = 1e-8

    def look(self, seen: Subject) -> Outcome:
        found, looked = [], 0
        for part in seen.parts:
            zeros = []
            for name, _, weight in layers(part):
                looked += 1
                if weight.numel() < 2 or weight.std() > self.flat * max(1.0, float(weight.abs().max())):
                    same = len(weight) > 2 and weight[0].numel() > 1 and bool((weight == weight[:1]).all())
                    found += [name] if same else []
                elif bool((weight == 0).all()):
                    zeros.append(name)
                else:
                    found.append(name)
            found += [name for name in zeros if name not in harmless_zeros(seen, part, zeros)]
        if not found:
            return self.passed(f"{looked} layers vary", "all")
        return self.fault(
            0,
            listed(found),
            f"{len(found)} of {looked} layers start with one value",
            "none",
            "Nothing tells units apart that start the same. Draw the weights at random: init: kaiming in "
            "model.init_args.network.init_args, or torch.nn.init.kaiming_normal_; only the last layer of a network or "
            "of a residual branch may start at 0.",
        )


class WeightsScale(Check):
    """Weights far larger or smaller than what keeps the variance from layer to layer."""

    code = "weights-scale"
    floor = Level.WIRING
    follows = frozenset({"weights-constant"})
    limit = 10.0

    def look(self, seen: Subject) -> Outcome:
        if seen.starts_from_others or seen.pretrained:
            return self.skipped("the weights are those of an earlier training")
        worst, where = 1.0, ""
        for part in seen.parts:
            last = last_layer(seen, part)
            for name, layer, weight in layers(part):
                if weight.numel() < 16 or not bool((weight != 0).any()):
                    continue
                ratio = weight.std().item() * math.sqrt(fan_in(layer, weight))
                # A last layer may start small, for a first answer near that of doing nothing.
                if ratio < 1 and (layer is last or len(weight) == 1):
                    continue
                if hasattr(layer, "parametrizations"):  # such as a spectral norm, which sets the scale itself
                    continue
                if max(ratio, 1 / ratio) > max(worst, 1 / worst):
                    worst, where = ratio, name
        if max(worst, 1 / worst) <= self.limit:
            return self.passed(worst, f"1/{self.limit:g} to {self.limit:g}")
        return self.fault(
            0,
            where,
            worst,
            f"1/{self.limit:g} to {self.limit:g}",
            f"The standard deviation of its weights is {worst:.3g} times 1 / sqrt(fan-in). Set init: kaiming in "
            "model.init_args.network.init_args, or use torch.nn.init.kaiming_normal_ with the activation's gain.",
        )


def layers(part: Part) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """The trainable convolutions and matrices of a network: name, layer, weight (units first, float32)."""
    for name, layer in part.module.named_modules():
        if not isinstance(layer, LAYERS):
            continue
        hooked = getattr(layer, "parametrizations", None)
        weight = hooked.weight.original if hooked is not None and "weight" in hooked else layer.weight
        if not isinstance(weight, Tensor) or not weight.requires_grad or isinstance(weight, nn.UninitializedParameter):
            continue
        weight = weight.detach().float()
        if isinstance(layer, _ConvTransposeNd) and layer.groups == 1:
            weight = weight.transpose(0, 1)
        yield f"{part.name}.{name}".rstrip("."), layer, weight


def fan_in(layer: nn.Module, weight: Tensor) -> float:
    """Values that go into one of the layer's results; of a transposed convolution those that meet in one pixel."""
    if isinstance(layer, _ConvTransposeNd):
        return max(1.0, weight[0].numel() / math.prod(layer.stride))
    return weight[0].numel()


def run_order(part: Part) -> list[nn.Module]:
    """The layers with weights, in the order in which they run."""
    found: list[nn.Module] = []
    handles = [
        layer.register_forward_hook(lambda layer, args, output: found.append(layer))
        for layer in part.module.modules()
        if isinstance(layer, LAYERS)
    ]
    training = {module: module.training for module in part.module.modules()}
    try:
        part.module.eval()
        with torch.no_grad():
            part.module(part.given[:2])
    finally:
        for module, mode in training.items():
            module.training = mode
        for handle in handles:
            handle.remove()
    return found


def last_layer(seen: Subject, part: Part) -> nn.Module | None:
    """The layer with weights that runs last."""
    with seen.autocast():
        ran = run_order(part)
    return ran[-1] if ran else None


def harmless_zeros(seen: Subject, part: Part, zeros: list[str]) -> set[str]:
    """Of layers that start at 0, those that may: the last, and the last of a branch that is added to something."""
    if not zeros:
        return set()
    last = last_layer(seen, part)
    same: set[str] = set()
    modules = dict(part.module.named_modules())
    names = {layer: name for name, layer in modules.items()}

    def hear(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            given = args[0] if args else None
            if not isinstance(given, Tensor) or not isinstance(output, Tensor) or given.shape != output.shape:
                return
            if torch.equal(given, output) or torch.equal(given.relu(), output):
                same.add(name)

        return hook

    handles = [m.register_forward_hook(hear(n)) for n, m in modules.items() if any(True for _ in m.children())]
    try:
        with torch.no_grad(), seen.autocast():
            part.module(part.given[:2])
    finally:
        for handle in handles:
            handle.remove()
    harmless = set()
    for full in zeros:
        name = full.removeprefix(f"{part.name}.")
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        if name == names.get(last) or parents & same:
            harmless.add(full)
    return harmless
