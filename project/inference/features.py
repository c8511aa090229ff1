"""Feature maps: the layers of a network, the patches that activate a layer most, and what in them does (by Captum)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from project.callbacks.grid import new_figure
from project.networks.normalize import Normalize
from workbench.errors import UserError, choose

BEST = 9  # patches that are shown of each feature map
WINDOW = 128  # side in pixels of the window around a unit that its activation is attributed to
NEAR = 16  # pixels around a place within which no weaker place of the same map counts
MAX_STRIDE = 8  # between units of the layer chosen by default: with larger strides they see more than the window
IG_STEPS, IG_BATCH = 16, 8  # points from baseline to input, a sum a few percent off at most; how many at once
SHARE, MIN_REACH = 0.9, 4  # of the attribution that patches hold; pixels that they reach from their center at least
LOUD = 0.99  # quantile of an attribution that gets the strongest color: a few odd pixels would leave all others white


@contextmanager
def recorded(modules: dict[str, nn.Module]) -> Iterator[list[tuple[str, Tensor, object]]]:
    """A list that collects each pass of these modules: name, first argument and output.

    Outputs are copies: an activation behind may change them in place.
    """
    passes: list[tuple[str, Tensor, object]] = []

    def hook(name: str, module: nn.Module, args: tuple, output: object) -> None:
        passes.append((name, args[0], output.detach().clone() if isinstance(output, Tensor) else output))

    handles = [module.register_forward_hook(partial(hook, name)) for name, module in modules.items()]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def feature_layers(network: nn.Module, channels: int) -> dict[str, tuple[int, int]]:
    """Every part of a network that gives feature maps, in the order of the pass: name -> (maps, stride in pixels)."""
    x = next(network.parameters()).new_zeros(1, channels, WINDOW, WINDOW)
    modules = {name: part for name, part in network.named_modules() if name and not isinstance(part, Normalize)}
    with recorded(modules) as passes:
        network(x)
    found = {}
    for name, _, output in passes:
        if isinstance(output, Tensor) and output.dim() == 4 and len(output) == 1:
            found.setdefault(name, (output.shape[1], max(1, round(WINDOW / output.shape[2]))))
    return found


def choose_layer(layers: dict[str, tuple[int, int]], wanted: str | None) -> str:
    """The layer of that name; without one, on the way down, the deepest of a stride up to MAX_STRIDE."""
    if not layers:
        raise UserError("The network gives no feature maps that could be shown. Leave them out: --maps 0")
    if wanted is None:
        names = list(layers)
        deepest = max(range(len(names)), key=lambda place: (layers[names[place]][1], place))
        near = [name for name in names[: deepest + 1] if layers[name][1] <= MAX_STRIDE] or names
        return max(reversed(near), key=lambda name: layers[name][::-1])
    return wanted if wanted in layers else choose("--layer", wanted, [name for name in layers if name.count(".") < 2])


class Place(NamedTuple):
    """A unit with a strong activation: row and column in its feature map, for the image of that number."""

    value: float
    image: int
    y: int
    x: int


class Strongest:
    """The places where each feature map is most active, NEAR pixels apart at least; stride: pixels between units."""

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self._values: list[Tensor] = []  # (maps, n)
        self._places: list[Tensor] = []  # (maps, n, 3): image, y, x

    @torch.no_grad()
    def update(self, maps: Tensor, images: Sequence[int]) -> None:
        """Look at the feature maps (B, maps, h, w) of the images of these numbers."""
        height, width = maps.shape[2:]
        reach = [min(max(1, NEAR // self.stride), side - 1) for side in (height, width)]
        _, strongest = F.max_pool2d(maps, [2 * r + 1 for r in reach], 1, reach, return_indices=True)
        own = torch.arange(height * width, device=maps.device).view(height, width)
        peaks = maps.float().masked_fill(strongest != own, -math.inf).flatten(2)
        values, at = peaks.topk(min(BEST, height * width), dim=2)
        numbers = torch.tensor(images, device=maps.device)[:, None, None].expand_as(at)
        places = torch.stack([numbers, at // width, at % width], dim=3)
        self._values.append(values.transpose(0, 1).flatten(1).cpu())
        self._places.append(places.transpose(0, 1).flatten(1, 2).cpu())

    def places(self, maps: int) -> dict[int, list[Place]]:
        """The places of the most active maps: of these, and of the places, the strongest first."""
        values, order = torch.cat(self._values, 1).sort(dim=1, descending=True)
        places = torch.cat(self._places, 1).gather(1, order[..., None].expand(-1, -1, 3))
        found = {}
        for number in values[:, 0].argsort(descending=True)[:maps].tolist():
            entries = zip(values[number, :BEST].tolist(), places[number].tolist(), strict=False)
            found[number] = [Place(value, *place) for value, place in entries if math.isfinite(value)]
        return found


def attribute(network: nn.Module, layer: str, x: Tensor, baseline: Tensor, unit: tuple[int, int, int]) -> Tensor:
    """How much each pixel of x (1, C, H, W) raises or lowers one unit (map, row, column) of a layer: (H, W).

    Integrated gradients (Sundararajan et al. 2017): all pixels sum to the activation less that for the baseline.
    """
    from captum.attr import NeuronIntegratedGradients

    method = NeuronIntegratedGradients(network, network.get_submodule(layer))
    options = {"baselines": baseline.expand_as(x), "n_steps": IG_STEPS, "internal_batch_size": IG_BATCH}
    return method.attribute(x, unit, **options)[0].detach().sum(dim=0).float().cpu()


def explain_place(
    network: nn.Module, layer: str, stride: int, number: int, place: Place, x: Tensor, view: Tensor, baseline: Tensor
) -> tuple[Tensor, Tensor]:
    """The surroundings of a place of map ``number``, with the place at their center.

    The place's image as the network gets it is x (1, C, H, W), as a person sees it ``view`` (1 or 3, H, W); the
    baseline (1, C, 1, 1) is an input without content, such as the mean of the training images.

    Returns:
        The patch, (3, WINDOW + 1, WINDOW + 1), gray outside the image; its attribution, (WINDOW + 1, WINDOW + 1).
    """
    align = math.lcm(stride, *(getattr(part, "multiple", 1) for part in network.modules()))
    sides = zip((place.y, place.x), x.shape[2:], strict=True)
    y, column = (min(stride * unit + stride // 2, side - 1) for unit, side in sides)
    top, left = (max(0, (at - WINDOW // 2) // align * align) for at in (y, column))
    part = x[:, :, top : top + WINDOW + align, left : left + WINDOW + align]
    values = attribute(network, layer, part, baseline, (number, place.y - top // stride, place.x - left // stride))
    return _window(view.expand(3, -1, -1), y, column, 0.5), _window(values, y - top, column - left, 0.0)


def _window(image: Tensor, y: int, x: int, fill: float) -> Tensor:
    """WINDOW + 1 pixels square of (..., H, W) around a place, filled outside the image."""
    return F.pad(image, (WINDOW // 2,) * 4, value=fill)[..., y : y + WINDOW + 1, x : x + WINDOW + 1]


def draw_features(
    places: dict[int, list[Place]], explained: dict[int, list[tuple[Tensor, Tensor]]], title: str
) -> Figure:
    """For each map the patches that activate it most, and beside them what in them matters.

    Of what a unit could see it mostly uses the center (Luo et al. 2016): patches are cut to what it does use.
    """
    reach = _reach(torch.stack([values for pairs in explained.values() for _, values in pairs]))
    middle = slice(WINDOW // 2 - reach, WINDOW // 2 + reach + 1)
    rows = math.ceil(len(places) / 2)
    figure = new_figure(12, 3.2 * rows + 1)
    figure.suptitle(
        f"{title}\nleft: the {BEST} patches that activate each map most, strongest first, {2 * reach + 1} pixels wide\n"
        "right: what in the patch raises (red) or lowers (blue) the activation, by integrated gradients"
    )
    axes = figure.subplots(rows, 4, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for (number, some), (left, right) in zip(places.items(), axes.reshape(-1, 2), strict=False):
        patches, maps = zip(*explained[number], strict=True)
        colors = make_grid([patch[:, middle, middle] for patch in patches], nrow=3, padding=1, pad_value=1)
        left.imshow(colors.permute(1, 2, 0).numpy())
        left.set_title(f"map {number}: {some[0].value:.3g} to {some[-1].value:.3g}", fontsize=10)
        maps = [part[None, middle, middle] for part in maps]
        maps = [part / part.abs().flatten().quantile(LOUD).clamp_min(1e-12) for part in maps]  # each on its own scale
        right.imshow(make_grid(maps, nrow=3, padding=1)[0].numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    return figure


def _reach(attributions: Tensor) -> int:
    """Pixels from the center within which attributions (N, S, S) have SHARE of their weight, on average."""
    weight = attributions.abs() / attributions.abs().sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    away = (torch.arange(weight.shape[1]) - weight.shape[1] // 2).abs()
    frames = torch.bincount(torch.maximum(away[:, None], away).flatten(), weight.mean(dim=0).flatten().double())
    return min(WINDOW // 2, max(MIN_REACH, int((frames.cumsum(0) < SHARE).sum())))
