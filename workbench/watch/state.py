"""Measurements as plain values, which travel in a checkpoint and come back as they were."""

from __future__ import annotations

from typing import Any

import torch

from workbench.findings import Activation, History, Knob, Series


def pack(history: History) -> dict[str, Any]:
    """All that was measured, and what was learned of the model on the way.

    The size is bounded, since that of every series is: some 10 KB for each number that is logged, 1.5 KB for each of
    each layer.

    Returns:
        Lists, numbers and tensors, which any reader of checkpoints may load.
    """
    series = {(None, name): values for name, values in history.scalars.items()}
    series |= {(table, name): values for table, rows in history.tables.items() for name, values in rows.items()}
    facts = history.facts
    return {
        "names": [list(key) for key in series],
        "shapes": torch.tensor([[len(s), *s.shape] for s in series.values()]),
        "steps": torch.tensor([step for s in series.values() for step in s.steps], dtype=torch.int32),
        "values": torch.tensor([value for s in series.values() for value in s.values], dtype=torch.float64),
        "step": history.step,
        "first": {name: list(values) for name, values in history.first.items()},
        "nonfinite": [history.nonfinite, history.nonfinite_gradient],
        "facts": {
            "pretrained": facts.pretrained,
            "order": list(facts.parameters),
            "activations": {name: list(vars(place).values()) for name, place in facts.activations.items()},
            "penalties": list(facts.penalties),
        },
    }


def unpack(history: History, state: dict[str, Any]) -> None:
    """Put everything back but the facts, which are not known before training starts."""
    steps, values = iter(state["steps"].tolist()), iter(state["values"].tolist())
    for (table, name), (length, *shape) in zip(state["names"], state["shapes"].tolist(), strict=True):
        series = Series.restored([next(steps) for _ in range(length)], [next(values) for _ in range(length)], shape)
        rows = history.scalars if table is None else history.tables.setdefault(table, {})
        rows[name] = series
    history.step = state["step"]
    history.first = {name: list(found) for name, found in state["first"].items()}
    history.nonfinite, history.nonfinite_gradient = (found and tuple(found) for found in state["nonfinite"])


def unpack_facts(history: History, state: dict[str, Any]) -> None:
    """What was learned of the model while it ran; a setting that has been changed since then stays changed."""
    found, facts = state["facts"], history.facts
    facts.pretrained = found["pretrained"]
    facts.activations = {name: Activation(*values) for name, values in found["activations"].items()}
    known = [name for name in found["order"] if name in facts.parameters]
    facts.parameters = {name: facts.parameters[name] for name in [*known, *facts.parameters]}
    for name in found["penalties"]:
        facts.penalties.setdefault(name, Knob(name))
