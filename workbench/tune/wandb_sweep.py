"""The space of a sweep as a sweep of Weights & Biases."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from workbench.errors import UserError
from workbench.main import PROGRAM
from workbench.monitor import LOWER_IS_BETTER
from workbench.tune.rounds import Settings
from workbench.tune.space import Parameter, Space

METHODS = {"grid": "grid", "jittered_grid": "grid", "random": "random", "quasi_random": "random", "tpe": "bayes"}


def write_wandb_sweep(path: Path, settings: Settings, space: Space, words: list[str]) -> str:
    """Write the space as a W&B sweep; the lines to print, with the command that starts it.

    A choice of classes is a list of JSON texts. W&B knows no range that exists only beside one choice: such a range is
    a parameter of its own where every choice has it, and else its points are put into the choices.

    Raises:
        UserError: The space ties keys, which W&B cannot, or the file cannot be written.
    """
    if space.ties:
        raise UserError(
            f"space.{next(iter(space.ties))}: W&B cannot tie a key to another one (same_as).\n"
            "Leave it out of the space, or run this sweep without --wandb-yaml."
        )
    method, notes = METHODS[settings.sampler], []
    parameters, jitter = {}, np.random.default_rng(settings.seed) if settings.sampler == "jittered_grid" else None
    tops = [p for p in space.parameters if p.when is None]
    for p in tops:
        own = [other for other in space.parameters if other.when and other.when[0] == p.name]
        shared = _shared(p, own)
        parameters[p.key] = _described(p, method, jitter, _choices(p, [o for o in own if o.key not in shared], space))
        parameters |= {key: _described(example, method, jitter) for key, example in shared.items()}
        if {o.key for o in own} - set(shared):
            notes.append(f"{p.key}: ranges of single choices have fixed points there, W&B has no conditions.")
    if jitter is not None and any(p.key in parameters and not (p.choices or p.is_integer) for p in space.parameters):
        notes.append("The points of a range are shifted once, not anew in every row of the grid.")
    if settings.refine or settings.extend:
        notes.append("W&B neither refines around the best nor extends a range past its border.")
    if settings.prune:
        notes.append("Hopeless trials are not stopped: add W&B's own `early_terminate` for that.")
    mode = settings.mode or ("min" if LOWER_IS_BETTER.search(settings.objective) else "max")
    if settings.mode is None:
        notes.append(f"The goal follows from the metric's name: {mode}. Set `mode` in the sweep's file otherwise.")
    tree: dict[str, Any] = {
        "program": f"{PROGRAM.name}/__main__.py",  # W&B asks for one; `command` is what is run
        "method": method,
        "metric": {"name": settings.objective, "goal": "maximize" if mode == "max" else "minimize"},
        "command": ["${env}", "python", "-m", PROGRAM.name, "fit", *words, *settings.words, "${args}"],
        "parameters": parameters,
    }
    if settings.trials:
        tree["run_cap"] = settings.trials
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(tree, sort_keys=False, width=1000), "utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
    lines = [f"Written: {path} ({method}, {len(parameters)} parameters)", *notes]
    return "\n".join([*lines, f"Start it:   wandb sweep {path}", "Work on it: wandb agent ENTITY/PROJECT/SWEEP_ID"])


def _shared(parameter: Parameter, own: list[Parameter]) -> dict[str, Parameter]:
    """The ranges below a choice of classes that every one of them has, the same in all."""
    found = {}
    for key in {p.key: None for p in own}:
        same = [p for p in own if p.key == key]
        described = {(p.low, p.high, p.log, p.points, *p.choices) for p in same}
        if {p.when[1] for p in same} == set(parameter.choices) and len(described) == 1:
            found[key] = same[0]
    return found


def _choices(parameter: Parameter, own: list[Parameter], space: Space) -> list[Any]:
    """What a choice may be, as the command line takes it; with each combination of the ranges below it."""
    found = []
    for label, value in parameter.choices.items():
        below = [p for p in own if p.when[1] == label]
        for point in itertools.product(*(p.grid() for p in below)):
            given = value
            if below:
                arguments = dict(zip((p.key.rpartition(".")[2] for p in below), point, strict=True))
                given = {**value, "init_args": {**value["init_args"], **arguments}}
            found.append(given if isinstance(given, str | int | float) else json.dumps(given))
    return found


def _described(parameter: Parameter, method: str, jitter: Any, choices: list[Any] | None = None) -> dict[str, Any]:
    """A parameter as W&B describes it; its grid takes lists alone."""
    if parameter.choices:
        return {"values": choices}
    if method == "grid":
        if jitter is None or parameter.is_integer:
            return {"values": parameter.grid()}
        count = parameter.points
        return {"values": [parameter.at((i + jitter.random()) / count) for i in range(count)]}
    names = {(True, True): "q_log_uniform_values", (True, False): "int_uniform"}
    names |= {(False, True): "log_uniform_values", (False, False): "uniform"}
    described = {"distribution": names[parameter.is_integer, parameter.log], "min": parameter.low}
    return {**described, "max": parameter.high} | ({"q": 1} if parameter.is_integer and parameter.log else {})
