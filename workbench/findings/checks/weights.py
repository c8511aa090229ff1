"""What is wrong with the weights before they are trained, and with who trains them."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

from jsonargparse import dict_to_namespace
from torch import Tensor, equal, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from workbench.findings.checks.context import CheckContext, Part, listed
from workbench.findings.engine import Found, Passed, Result, Skipped
from workbench.task import HELPER

LAYERS = (_ConvNd, nn.Linear)


def weights_constant(context: CheckContext) -> Result:
    """Units that all start the same, and so learn the same."""
    found, looked = [], 0
    for part in context.parts:
        zeros = []
        for name, _, weight in layers(part):
            looked += 1
            if weight.numel() < 2 or weight.std() > 1e-8 * max(1.0, float(weight.abs().max())):
                same = len(weight) > 2 and weight[0].numel() > 1 and bool((weight == weight[:1]).all())
                found += [name] if same else []
            else:
                (found if bool((weight != 0).any()) else zeros).append(name)
        if zeros:
            order, branches = trace_layers(context, part)
            # The last layer may start at 0, and what makes a branch that is added to something vanish.
            found += [n for n in zeros if n not in order[-1:] and not n.startswith(branches)]
    if not found:
        return Passed(f"{looked} layers vary", "all")
    advice = "Draw weights at random (torch.nn.init.kaiming_normal_); only a last layer may start at 0."
    return Found(listed(found), f"{len(found)} of {looked} layers start with one value", "none", advice)


def weights_scale(context: CheckContext) -> Result:
    """Weights far larger or smaller than what keeps the variance from layer to layer, 1 / sqrt(fan-in)."""
    if context.is_pretrained:
        return Skipped("the weights are those of an earlier training")
    worst, where, limit = 1.0, "", 10.0
    for part in context.parts:
        last = trace_layers(context, part)[0][-1:]
        for name, layer, weight in layers(part):
            if weight.numel() < 16 or not bool((weight != 0).any()):
                continue
            ratio = weight.std().item() * math.sqrt(fan_in(layer, weight))
            # A last layer may start small, for a first output near that of doing nothing; a parametrization, such
            # as a spectral norm, sets the scale itself.
            if (ratio < 1 and (name in last or len(weight) == 1)) or hasattr(layer, "parametrizations"):
                continue
            if max(ratio, 1 / ratio) > max(worst, 1 / worst):
                worst, where = ratio, name
    span = f"1/{limit:g} to {limit:g}"
    if max(worst, 1 / worst) <= limit:
        return Passed(worst, span)
    advice = "Start them near 1 / sqrt(fan-in): torch.nn.init.kaiming_normal_ with the activation's gain."
    return Found(where, worst, span, advice)


def frozen_parameters(context: CheckContext) -> Result:
    """Tensors that are not trained, though nobody said so."""
    everything = dict(own_parameters(context.model))
    frozen = [name for name, parameter in everything.items() if not parameter.requires_grad]
    prefixes = tuple(
        f"{path}.{prefix}.".lstrip(".")
        for path, module in context.model.named_modules()
        for prefix in getattr(module, "declared_frozen", ())
    )
    undeclared = [name for name in frozen if not f"{name}.".startswith(prefixes)]
    if not frozen:
        return Passed(0, 0)
    untrained = "init_from" in context.model.hparams and not context.is_pretrained
    if len(undeclared) < len(frozen) and untrained:
        advice = "These are frozen and untrained: start from pretrained weights, or train them too."
        return Found(listed(frozen), len(frozen), 0, advice)
    declared = declared_freeze(context) if undeclared else "declared_frozen"
    if declared and len(frozen) < len(everything):
        return Passed(f"{len(frozen)} frozen", f"declared by {declared}")
    advice = "requires_grad is False: set it to True, or list these in the module's attribute declared_frozen."
    return Found(listed(undeclared or frozen), len(frozen), 0, advice)


def parameters_not_optimized(context: CheckContext) -> Result:
    """Trainable tensors that no optimizer holds."""
    held = {id(p) for optimizer in context.optimizers for group in optimizer.param_groups for p in group["params"]}
    own = [(name, p) for name, p in own_parameters(context.model) if p.requires_grad]
    tensors = [*own, *hidden(context.model), *made_late(context)]
    missing = [name for name, tensor in tensors if id(tensor) not in held]
    if not missing:
        return Passed(f"{len(own)} tensors held", "all")
    advice = "Keep layers in nn.ModuleList, make them in __init__, and give configure_optimizers all parameters."
    return Found(listed(missing), len(missing), 0, advice)


def layers(part: Part) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """The trainable convolutions and matrices of a network: name, layer, weight (units first, float32)."""
    for name, layer in part.module.named_modules():
        if not isinstance(layer, LAYERS):
            continue
        hooked = getattr(layer, "parametrizations", None)
        weight = hooked.weight.original if hooked is not None and "weight" in hooked else layer.weight
        if isinstance(weight, Tensor) and weight.requires_grad and not isinstance(weight, nn.UninitializedParameter):
            transposed = isinstance(layer, _ConvTransposeNd) and layer.groups == 1
            weight = weight.detach().float()
            yield part.full_name(name), layer, weight.transpose(0, 1) if transposed else weight


def fan_in(layer: nn.Module, weight: Tensor) -> float:
    """Values that go into one result; of a transposed convolution those that meet in one pixel."""
    if isinstance(layer, _ConvTransposeNd):
        return max(1.0, weight[0].numel() / math.prod(layer.stride))
    return weight[0].numel()


def trace_layers(context: CheckContext, part: Part) -> tuple[list[str], tuple[str, ...]]:
    """Names of the layers with weights, as they run, and prefixes of the blocks that give what they are given."""
    order: list[str] = []
    identities: list[str] = []

    def visit(name: str, module: nn.Module, args: tuple, output: Any) -> None:
        given = args[0] if args else None
        if isinstance(module, LAYERS):
            order.append(part.full_name(name))
        elif not name or not any(True for _ in module.children()):
            return
        elif isinstance(given, Tensor) and isinstance(output, Tensor) and given.shape == output.shape:
            identities.extend([part.full_name(name) + "."] * (equal(given, output) or equal(given.relu(), output)))

    with context.inference():
        part.trace(copy.deepcopy(part.module).eval(), visit)
    # One that holds all layers is the network itself, around which a residual goes too.
    return order, tuple(block for block in identities if not all(name.startswith(block) for name in order))


def own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of the networks; not those of what judges them, as losses and metrics do."""
    for name, parameter in model.named_parameters():
        if not HELPER.search(name) and not isinstance(parameter, nn.UninitializedParameter):
            yield name, parameter


def hidden(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Trainable tensors that a module keeps where torch does not find them: in lists, dicts, or as plain tensors."""
    known = {id(parameter) for parameter in model.parameters()}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key.startswith("_") or HELPER.search(name) or HELPER.search(key):
                continue
            is_list = isinstance(value, list | tuple | set)
            items = value.items() if isinstance(value, dict) else enumerate(value) if is_list else [("", value)]
            for number, item in items:
                for inner, tensor in item.named_parameters() if isinstance(item, nn.Module) else [("", item)]:
                    trainable = isinstance(tensor, Tensor) and tensor.is_leaf and tensor.requires_grad
                    if trainable and id(tensor) not in known:
                        yield ".".join(filter(None, (name, key, str(number), inner))), tensor


def made_late(context: CheckContext) -> Iterator[tuple[str, Tensor]]:
    """Parameters that the first pass makes, when the optimizers are there already."""
    for part in context.parts:
        network = copy.deepcopy(part.module).eval()
        known = {name for name, _ in network.named_parameters()}
        with context.inference(), contextlib.suppress(Exception):
            part.run(network)
        yield from ((part.full_name(name), p) for name, p in network.named_parameters() if name not in known)


def declared_freeze(context: CheckContext) -> str:
    """The argument in the configuration that freezes something on purpose."""
    for key, value in dict_to_namespace(context.config.get("model") or {}).items():
        name = key.rpartition(".")[2].lower()
        if value and ("freeze" in name or "frozen" in name):
            return f"model.{key}"
    return ""
