"""Tensors that nobody trains: frozen without a word, or held by no optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.images import listed
from workbench.findings.checks.subject import HELPER, Subject
from workbench.findings.rule import Level

TUNING = "model.finetune"
FREEZE = ("freeze", "frozen", "train_backbone", "trainable")


class FrozenParameters(Check):
    """Tensors that are not trained, though nobody said so."""

    code = "frozen-parameters"
    floor = Level.WIRING

    def look(self, seen: Subject) -> Outcome:
        everything = dict(own_parameters(seen))
        frozen = [name for name, parameter in everything.items() if not parameter.requires_grad]
        if not frozen:
            return self.passed(0, 0)
        declared = declared_freeze(seen)
        if declared == TUNING and not (seen.pretrained or seen.starts_from_others):
            return self.fault(
                0,
                listed(frozen),
                len(frozen),
                0,
                "model.finetune freezes weights that nobody has trained. Start from some that are: weights: DEFAULT or "
                "a file in model.init_args.network.init_args, or --model.init_args.init_from CHECKPOINT; or leave "
                "finetune.freeze_stages and freeze_norms out.",
            )
        if declared and len(frozen) < len(everything):
            return self.passed(f"{len(frozen)} frozen", f"declared by {declared}")
        return self.fault(
            0,
            listed(frozen),
            len(frozen),
            0,
            "requires_grad is False, so these stay as they are. Set it to True, or give the network an argument that "
            "says so, such as freeze: true in model.init_args.network.init_args.",
        )


class ParametersNotOptimized(Check):
    """Tensors that want to be trained and that no optimizer holds."""

    code = "parameters-not-optimized"
    floor = Level.WIRING

    def look(self, seen: Subject) -> Outcome:
        held = {id(p) for optimizer in seen.optimizers for group in optimizer.param_groups for p in group["params"]}
        _ = seen.parts  # layers that are made by the first pass are there now
        everything = [(name, p) for name, p in own_parameters(seen) if p.requires_grad]
        missing = [name for name, parameter in everything if id(parameter) not in held]
        missing += [name for name, parameter in hidden(seen.model) if id(parameter) not in held]
        if not missing:
            return self.passed(f"{len(everything)} tensors held", "all")
        return self.fault(
            0,
            listed(missing),
            len(missing),
            0,
            "No optimizer holds these. Keep layers in nn.ModuleList or nn.ModuleDict instead of a list or dict, make "
            "all of them in __init__, and give configure_optimizers every trainable parameter "
            "(model.init_args.optimizer).",
        )


def own_parameters(seen: Subject) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of the networks; not those of what judges them, as losses and metrics do."""
    for name, parameter in seen.model.named_parameters():
        if not HELPER.search(name) and not isinstance(parameter, nn.UninitializedParameter):
            yield name, parameter


def hidden(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Trainable tensors that a module keeps where torch does not find them: in lists, dicts, or as plain tensors."""
    known = {id(parameter) for parameter in model.parameters()}
    for name, module in model.named_modules():
        if HELPER.search(name):
            continue
        for key, value in vars(module).items():
            if key.startswith("_") or HELPER.search(key):
                continue
            where = f"{name}.{key}".lstrip(".")
            items = value.items() if isinstance(value, dict) else enumerate(value) if _is_list(value) else ()
            for number, item in [*items, *([("", value)] if isinstance(value, Tensor) else [])]:
                if isinstance(item, nn.Module):
                    inside: Any = item.named_parameters()
                else:
                    inside = [("", item)] if isinstance(item, Tensor) and item.is_leaf else []
                for inner, tensor in inside:
                    if tensor.requires_grad and id(tensor) not in known:
                        yield ".".join(filter(None, (where, str(number), inner))), tensor


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set)


def declared_freeze(seen: Subject) -> str:
    """The setting that freezes something on purpose: an argument in the configuration, or a network's attribute."""
    if getattr(getattr(seen.model, "finetune", None), "freezes", False):
        return TUNING
    for key, value in _leaves(seen.config.get("model")):
        name = key.rpartition(".")[2].lower()
        if (any(word in name for word in FREEZE[:2]) and value) or (name in FREEZE[2:] and value is False):
            return f"model.{key}"
    for name, module in seen.model.named_modules():
        for key, value in vars(module).items():
            if any(word in key.lower() for word in FREEZE[:2]) and not callable(value) and value:
                return f"{name}.{key}".lstrip(".")
    return ""


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), tree
