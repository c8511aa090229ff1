"""Which parameters a run would train, how many, and at which rates."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from workbench.findings.checks import Subject
from workbench.findings.checks.subject import HELPER

SHOWN = 8
"""Names of parts that a line lists."""


def describe_trainable(seen: Subject) -> dict[str, str]:
    """A line for each network: how many parameters are trained, in which parts, which are frozen, and the rates.

    Args:
        seen: As before the first step.
    """
    lines = {}
    for name, network in seen.model.named_children():
        everything = list(network.parameters())
        if HELPER.search(name) or not everything:
            continue
        trained = sum(p.numel() for p in everything if p.requires_grad)
        line = f"{trained:,} of {sum(p.numel() for p in everything):,} parameters are trained"
        if trained < sum(p.numel() for p in everything):
            line += f": {_listed(whole_parts(network, True))}; frozen: {_listed(whole_parts(network, False))}"
        lines[name] = line
    rates = [
        f"{group['name']} {group.get('initial_lr', group['lr']):.3g}"
        for optimizer in seen.optimizers
        for group in optimizer.param_groups
        if "name" in group
    ]
    if rates:
        lines["Rates"] = ", ".join(rates)
    tuning = getattr(seen.model, "finetune", None)
    if tuning is not None and tuning.unfreeze:
        changes = [f"epoch {epoch}: {count}" for epoch, count in sorted(tuning.unfreeze.items())]
        lines["Stages frozen from"] = ", ".join(changes)
    return lines


def whole_parts(network: nn.Module, trained: bool) -> list[str]:
    """The largest parts all of whose parameters are trained, or none; and single parameters beside such parts."""
    return list(_parts(network, trained, ""))


def _parts(module: nn.Module, trained: bool, name: str) -> Iterator[str]:
    flags = {p.requires_grad for p in module.parameters()}
    if flags == {trained} and name:
        yield name
    elif trained in flags:
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad == trained:
                yield f"{name}.{own}".lstrip(".")
        for child, part in module.named_children():
            yield from _parts(part, trained, f"{name}.{child}".lstrip("."))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")
