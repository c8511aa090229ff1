"""Classification networks with their weights, and where in them an image is how small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from project.networks.weights_file import is_file, load_file
from workbench.errors import UserError, choose
from workbench.pretrained import pretrained_download_skipped

STRIDES = (2, 4, 8, 16, 32)
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and standard deviation that torchvision's weights were trained with."""
TIMM = "timm:"
"""Before the names of timm's networks."""
PROBE = 128
"""Side of the image that finds the stages; any multiple of the largest stride that leaves more than one pixel."""


@dataclass(frozen=True)
class Pretrained:
    """A classification network, ready to be cut.

    Attributes:
        network: In evaluation mode, with its weights.
        mean: What its weights were trained with, one value a color channel, for pixels in [0, 1].
        std: Likewise.
        trained: Whether its weights have learned something, or are about to be replaced by some that have.
    """

    network: nn.Module
    mean: list[float]
    std: list[float]
    trained: bool


def load_pretrained(name: str, weights: str | None) -> Pretrained:
    """Build a classification network.

    Args:
        name: torchvision's own name, such as resnet18; or timm's with ``timm:`` before it.
        weights: "DEFAULT" or another of the network's entries, which its source downloads into its cache; "none" or
            None for random ones; or a file: a state dict, or a checkpoint that holds one under ``state_dict``.

    Raises:
        UserError: For an unknown name or entry, a failed download, a file that cannot be read or does not fit.
    """
    if name.startswith(TIMM):
        from project.networks.timm_networks import load_timm

        return load_timm(name.removeprefix(TIMM), weights)
    import torchvision
    from torchvision.models import get_model, get_model_weights, list_models

    name = choose("backbone", name, list_models(module=torchvision.models))
    entries = get_model_weights(name)
    random = weights is None or weights.lower() == "none"
    if random or pretrained_download_skipped() or is_file(weights):
        network = get_model(name, weights=None)
        mean, std = IMAGENET
        if not random and not pretrained_download_skipped():
            load_file(network, Path(weights).expanduser(), name, "torchvision")
        return Pretrained(network.eval(), list(mean), list(std), trained=not random)
    entry = entries[choose("weights", weights, ["DEFAULT", *entries.__members__])]
    try:
        network = get_model(name, weights=entry)
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; a wrong hash is a RuntimeError
        raise UserError(
            f"The weights of {name} cannot be had: {error}\n"
            f"They are {entry.url}: fetch that file on a machine with a network and give it as weights: FILE,\n"
            f"or put it into {Path(torch.hub.get_dir()) / 'checkpoints'}; weights: none trains from scratch."
        ) from error
    transforms = entry.transforms()
    mean, std = (getattr(transforms, part, found) for part, found in zip(("mean", "std"), IMAGENET, strict=True))
    return Pretrained(network.eval(), list(mean), list(std), trained=True)


def find_stages(network: nn.Module) -> dict[int, str]:
    """Where an image has been halved how often: stride -> the last node before it is halved again.

    The nodes are called as torchvision's feature extraction calls them.

    Args:
        network: Takes (B, 3, H, W); in evaluation mode.

    Raises:
        UserError: The network keeps no image-like stages, as transformers do not.
    """
    stages: dict[int, str] = {}
    for name, value in _features(network).items():
        sides = value.shape[2:] if isinstance(value, Tensor) and value.ndim == 4 else ()
        stride = next((stride for stride in STRIDES if sides == (PROBE // stride, PROBE // stride)), 0)
        if stride and stride >= max(stages, default=0):
            stages[stride] = name
    # The largest strides without a gap: a transformer keeps images here and there.
    if max(stages, default=0) < 16 or tuple(stages) != STRIDES[STRIDES.index(min(stages)) :][: len(stages)]:
        raise UserError(
            f"{type(network).__name__} does not keep an image that it halves step by step.\n"
            "Take a convolutional network, such as resnet18, efficientnet_b0 or convnext_tiny."
        )
    return stages


def _features(network: nn.Module) -> dict[str, Any]:
    """What every node gives of an image, in the order of the nodes; nothing where it does not get that far."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    try:
        with torch.no_grad():
            names = get_graph_node_names(network, **_tracing(network))[1]
            extractor = create_feature_extractor(network, return_nodes=names, **_tracing(network)).eval()
            return extractor(torch.zeros(1, 3, PROBE, PROBE))
    except Exception:  # networks for one size of images refuse this one in words of their own
        return {}


def _tracing(network: nn.Module) -> dict[str, Any]:
    """Options of torchvision's feature extraction: timm says into which of its parts it must not look."""
    options: dict[str, Any] = {"suppress_diff_warning": True}
    if type(network).__module__.startswith("timm."):
        from timm.layers import get_notrace_functions, get_notrace_modules

        leaves = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
        options["tracer_kwargs"] = leaves
    return options


def cut(network: nn.Module, nodes: dict[int, str]) -> nn.Module:
    """The network up to its deepest node of these: (B, C, H, W) -> {stride as text: features}.

    Args:
        network: In evaluation mode; its layers are shared, not copied.
        nodes: Of :func:`find_stages`.
    """
    from torchvision.models.feature_extraction import create_feature_extractor

    names = {name: str(stride) for stride, name in nodes.items()}
    found = create_feature_extractor(network, return_nodes=names, **_tracing(network))
    # torchvision's module holds a graph for training and one for evaluation, which are the same, but forgets in which
    # of both modes it is when it is copied.
    return torch.fx.GraphModule(found, found.eval_graph).eval()


def layers_of_stages(encoder: nn.Module) -> list[list[str]]:
    """The layers and parameters that :func:`cut` has left, a list for each of its nodes, in the order they run in.

    Args:
        encoder: What :func:`cut` gave.
    """
    *nodes, output = encoder.graph.nodes
    ends = set(output.args[0].values())
    stages: list[list[str]] = [[]]
    for node in nodes:
        if node.op in ("call_module", "get_attr") and str(node.target) not in stages[-1]:
            stages[-1].append(str(node.target))
        if node in ends:
            stages.append([])
    return stages[:-1]


def adapt_input(network: nn.Module, channels: int) -> None:
    """Let the first convolution take another number of channels, and keep what it has learned: :func:`adapt_kernel`.

    Args:
        network: With a convolution of three input channels as its first layer; changed in place.
        channels: That it is to take.

    Raises:
        UserError: There is no such convolution.
    """
    if channels == 3:
        return
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise UserError(f"{type(network).__name__} has no first convolution over colors that could be adapted.")
    # Not another layer in its place: timm has convolutions of its own, which pad in ways of their own.
    first.weight = nn.Parameter(adapt_kernel(first.weight.detach(), channels))
    first.in_channels = channels


def adapt_kernel(kernel: Tensor, channels: int) -> Tensor:
    """A convolution's kernel over colors, for another number of channels.

    Three or four channels are colors, the fourth a noise map. Otherwise the first is a gray image, what else there
    is are hints, a mask: three equal channels would give the same as a gray image, so it gets the sum of the three
    kernels. Whatever is no image starts at zero.

    Args:
        kernel: (out, 3, height, width).
        channels: That it is to take.

    Returns:
        (out, channels, height, width).
    """
    adapted = kernel.new_zeros(kernel.shape[0], channels, *kernel.shape[2:])
    if channels in (3, 4):
        adapted[:, :3] = kernel
    else:
        adapted[:, :1] = kernel.sum(dim=1, keepdim=True)
    return adapted


def input_statistics(mean: list[float], std: list[float], channels: int) -> tuple[list[float], list[float]]:
    """What to normalize the adapted input with: one value a channel; what is no image stays as it is."""
    if channels in (3, 4):
        return [*mean, *[0.0] * (channels - 3)], [*std, *[1.0] * (channels - 3)]
    return [sum(mean) / 3, *[0.0] * (channels - 1)], [sum(std) / 3, *[1.0] * (channels - 1)]
