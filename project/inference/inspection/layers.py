"""The layers of a network by name: which there are, which is worth a look, and the network as far as one of them."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from project.networks.normalize import Normalize, Normalized
from workbench.errors import UserError

SHOWN = 24
"""Names of layers that an error lists."""


class Shape(NamedTuple):
    """Of a layer's feature maps: how many, and their height and width for some image."""

    maps: int
    height: int
    width: int


def answering_network(model: nn.Module) -> nn.Module:
    """The part of a model that answers images: its ``network`` or ``generator``, else itself."""
    parts = (getattr(model, name, None) for name in ("network", "generator"))
    return next((part for part in parts if isinstance(part, nn.Module)), model)


@torch.no_grad()
def feature_layers(network: nn.Module, x: Tensor) -> dict[str, Shape]:
    """Every part of a network that gives feature maps, in the order in which they come.

    Args:
        network: In evaluation mode.
        x: (1, C, H, W), what it takes.
    """
    found: dict[str, Shape] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: object, maps: object) -> None:
            if isinstance(maps, Tensor) and maps.dim() == 4 and len(maps) == len(x):
                found.setdefault(name, Shape(*maps.shape[1:]))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def choose_layer(name: str, layers: dict[str, Shape]) -> str:
    """The layer of that name, also with the model's own name for its network in front: ``network.middle``.

    Raises:
        UserError: There is none; tells the nearest names.
    """
    for wanted in (name, name.partition(".")[2]):
        if wanted in layers:
            return wanted
    near = difflib.get_close_matches(name, layers, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    outer = [layer for layer in layers if layer.count(".") < 2] or list(layers)
    more = f", ... ({len(layers)} in all, inner ones included)" if len(layers) > len(outer[:SHOWN]) else ""
    raise UserError(
        f"--layer {name}: the network has no layer of that name that gives feature maps.{hint}\n"
        f"There are: {', '.join(outer[:SHOWN])}{more}."
    )


def stages(network: nn.Module, layers: dict[str, Shape]) -> list[str]:
    """The large parts of a network up to where its maps grow again, without its answer: those worth a first look."""
    parts = _parts(network)
    names = [name for name in layers if name in parts and not isinstance(parts[name], Normalize)]
    names = names[:-1] or names
    shrinking = itertools.takewhile(
        lambda pair: layers[pair[1]].height <= layers[pair[0]].height, itertools.pairwise(names)
    )
    return [*names[:1], *(name for _, name in shrinking)]


def _parts(network: nn.Module) -> dict[str, nn.Module]:
    parts = {"": network}
    while len(parts) == 1:
        ((prefix, whole),) = parts.items()
        if isinstance(whole, Normalized):
            inside = {"network": whole.network}
        else:
            lists = {name: child for name, child in whole.named_children() if isinstance(child, nn.ModuleList)}
            inside = {name: child for name, child in whole.named_children() if name not in lists}
            inside |= {f"{name}.{place}": part for name, listed in lists.items() for place, part in enumerate(listed)}
        if not inside:
            break
        parts = {f"{prefix}.{name}".lstrip("."): part for name, part in inside.items()}
    return parts


class UpTo:
    """A network as far as one of its layers, as a function from its input to that layer's feature maps.

    Args:
        network: In evaluation mode.
        name: Of the layer.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self.network = network
        self.layer = network.get_submodule(name)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, maps, h, w); what comes behind the layer is not computed."""

        def stop(module: nn.Module, given: object, maps: Tensor) -> None:
            raise _Reached(maps)

        handle = self.layer.register_forward_hook(stop)
        try:
            self.network(x)
        except _Reached as reached:
            return reached.args[0]
        finally:
            handle.remove()
        raise ValueError("the network did not come by this layer")


class _Reached(BaseException):  # not an Exception: a network that catches those must not swallow it
    """Carries the feature maps out of the network."""


@contextmanager
def listening(network: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """A list that, after each pass of the network, ends with the layer's feature maps (B, maps, h, w)."""
    heard: list[Tensor] = []

    def hear(module: nn.Module, given: object, maps: Tensor) -> None:
        heard[:] = [maps.detach().clone()]  # an activation behind it may change it in place

    handle = network.get_submodule(name).register_forward_hook(hear)
    try:
        yield heard
    finally:
        handle.remove()
