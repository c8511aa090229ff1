"""What a task and the workbench agree on: entries of a batch, networks of a model, weights that need no download."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

HELPER = re.compile(r"loss|perceptual|metric|lpips|vgg|teacher|(^|[._])ema([._]|$)|^scores(\.|$)", re.IGNORECASE)
"""Names of what judges or accompanies a network, and is not trained itself."""
DISCRIMINATOR = re.compile(r"disc|critic|^net_?d$|^d$", re.IGNORECASE)

_skip: ContextVar[bool] = ContextVar("skip_pretrained_download", default=False)
pretrained_download_skipped = _skip.get


def _entries(batch: Any) -> list[Any]:
    """Of a (named) tuple, a list or a dict; any other batch is its only entry."""
    if isinstance(batch, dict):
        return list(batch.values())
    return list(batch) if isinstance(batch, tuple | list) else [batch]


def input_of(batch: Any) -> Any:
    """What a module's forward is called with, the first entry; None for an empty batch."""
    return next(iter(_entries(batch)), None)


def target_of(batch: Any) -> Any:
    """What the output is compared with, the second entry; None where the batch has none."""
    return next(iter(_entries(batch)[1:]), None)


def _named(batch: Any, name: str) -> Any:
    return batch.get(name) if isinstance(batch, dict) else getattr(batch, name, None)


def baseline_of(batch: Any) -> Any:
    """The do-nothing output, ``batch.baseline`` (or the key of that name); None where the batch has none."""
    return _named(batch, "baseline")


def is_padding(batch: Any) -> bool:
    """Whether this rank has the batch only because others have one more: it counts in no metric."""
    return _named(batch, "is_padding") is not None


def networks_of(model: nn.Module) -> dict[str, nn.Module]:
    """The trainable networks by path: what ``model.networks()`` offers, else the discriminators among the children, and
    beside them the only other child with parameters, or the whole model, under "", where there are several."""
    if hasattr(model, "networks"):
        return dict(model.networks())
    children = {
        name: child
        for name, child in model.named_children()
        if not HELPER.search(name) and any(True for _ in child.parameters())
    }
    critics = discriminators_of(model, children)
    others = {name: child for name, child in children.items() if name not in critics}
    return (others if len(others) == 1 else {"": model}) | {name: children[name] for name in critics}


def discriminators_of(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the names that ``model.discriminators`` lists, or else that look like a discriminator's."""
    listed = getattr(model, "discriminators", None)
    return [name for name in names if (DISCRIMINATOR.search(name) if listed is None else name in listed)]


@contextmanager
def skip_pretrained_download(skip: bool = True) -> Iterator[None]:
    """Within it pretrained weights, which a checkpoint is about to replace, are neither read nor downloaded."""
    before = _skip.set(skip or _skip.get())
    try:
        yield
    finally:
        _skip.reset(before)
