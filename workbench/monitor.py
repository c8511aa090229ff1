"""The metric that a callback monitors: whether higher is better, and what to name where it is not logged."""

from __future__ import annotations

import re
from difflib import get_close_matches

from lightning.pytorch import LightningModule, Trainer

from workbench.errors import UserError

LOWER_IS_BETTER = re.compile(r"(^|[/_])(loss|error|mae|mse|rmse|lpips|fid)($|[/_])", re.IGNORECASE)


def metric_directions(model: LightningModule) -> dict[str, bool]:
    """``higher_is_better`` of every metric that the model holds, by its own name, without the split in ``val_iou``."""
    inner = {re.sub("^(val|test)_", "", path.rpartition(".")[2]): module for path, module in model.named_modules()}
    found = {name: getattr(module, "higher_is_better", None) for name, module in inner.items()}
    return {name: direction for name, direction in found.items() if isinstance(direction, bool)}


def monitor_mode(key: str, monitor: str, mode: str | None, model: LightningModule) -> str:
    """``min`` or ``max``: the ``mode`` that is given, else by the metric's ``higher_is_better``, else by its name.

    UserError where a mode is given for the callback ``key`` that contradicts the metric.
    """
    higher = metric_directions(model).get(re.sub("^(val|test)[/_]", "", monitor))
    if higher is None and LOWER_IS_BETTER.search(monitor):
        higher = False
    if mode is None:
        return "min" if higher is False else "max"
    if higher is not None and mode != ("max" if higher else "min"):
        better = "higher" if higher else "lower"
        raise UserError(f"{key}.mode is {mode}, but {better} values of {monitor} are better: leave the mode out.")
    return mode


def require_logged(trainer: Trainer, key: str, monitor: str) -> None:
    """Raise a UserError if a validation during training has not logged the metric that a config key names."""
    if monitor in trainer.callback_metrics or trainer.sanity_checking or trainer.state.fn != "fit":
        return
    logged = [name for name in trainer.callback_metrics if not name.endswith("_baseline")]
    validated = [name for name in logged if name.startswith("val")] or logged
    nearest = get_close_matches(monitor, validated, n=10, cutoff=0.0)
    raise UserError(
        f"{key} is {monitor!r}, which no validation logs.\n"
        + (f"Logged, the nearest first: {', '.join(nearest)}.\nSet --{key} {nearest[0]}" if nearest else "None is.")
    )
