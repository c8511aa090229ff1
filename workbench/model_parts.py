"""Which parts of a module are the networks that it trains, and which only judge or accompany them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

HELPER = re.compile(r"loss|perceptual|metric|lpips|vgg|teacher|(^|[._])ema([._]|$)|^scores(\.|$)", re.IGNORECASE)
"""Names of what judges or accompanies a network, and is not trained itself."""
DISCRIMINATOR = re.compile(r"disc|critic|^net_?d$|^d$", re.IGNORECASE)


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
