"""The layers of a network, what their units can see, and what their feature maps respond to (by Captum)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from project.callbacks.grid import new_figure
from project.networks.normalize import Normalize
from workbench.errors import choose

BEST = 9
"""Patches that are shown of each feature map."""
IG_STEPS, IG_BATCH = 16, 8
"""Points from the baseline to the input: the sum is then a few percent off at most; and how many of them at once."""
SHARE, MIN_REACH = 0.9, 4
"""Share of the attribution that the patches hold; and pixels that they reach from their center at least."""
LOUD = 0.99
"""Quantile of an attribution that gets the strongest color: a few odd pixels would leave all others white."""
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
_POINTWISE = ("torch.nn.modules.activation", "torch.nn.modules.dropout")


class FeatureExtractor:
    """A network up to one of its layers: (B, C, H, W) -> feature maps (B, maps, h, w); nothing behind it is computed.

    By a hook: tracing fails on networks that pad by the size of their input.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        self.network, self.layer = network, network.get_submodule(layer)

    def __call__(self, x: Tensor) -> Tensor:
        def stop(module: nn.Module, args: object, maps: Tensor) -> None:
            raise _Reached(maps)

        handle = self.layer.register_forward_hook(stop)
        try:
            self.network(x)
        except _Reached as reached:
            return reached.args[0]
        finally:
            handle.remove()
        raise ValueError("the network did not pass this layer")


class _Reached(BaseException):  # not an Exception: a network that catches those must not swallow it
    pass


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
def feature_layers(network: nn.Module, x: Tensor) -> dict[str, tuple[int, int, int]]:
    """Every part of a network that gives feature maps for x, in the order of the pass: name -> (maps, h, w)."""
    with recorded({name: module for name, module in network.named_modules() if name}) as passes:
        network(x)
    found: dict[str, tuple[int, int, int]] = {}
    for name, _, output in passes:
        if isinstance(output, Tensor) and output.dim() == 4 and len(output) == len(x):
            found.setdefault(name, tuple(output.shape[1:]))
    return found


def choose_layer(name: str, layers: dict[str, tuple[int, int, int]]) -> str:
    """The layer of that name, also with the model's own name for its network in front: ``network.middle``."""
    for candidate in (name, name.partition(".")[2]):
        if candidate in layers:
            return candidate
    return choose("--layer", name, [layer for layer in layers if layer.count(".") < 2])


def stages(network: nn.Module, layers: dict[str, tuple[int, int, int]]) -> list[str]:
    """The outer layers, worth a first look: up to where the maps grow again, without the output."""
    left = [name for name in layers if not isinstance(network.get_submodule(name), Normalize)]
    names = _outermost(left)
    while len(names) == 1 < len(left):  # a wrapper
        left.remove(names[0])
        names = _outermost(left)
    names = names[:-1] or names
    shrinking = itertools.takewhile(lambda pair: layers[pair[1]][1] <= layers[pair[0]][1], itertools.pairwise(names))
    return [*names[:1], *(name for _, name in shrinking)]


def _outermost(names: list[str]) -> list[str]:
    return [one for one in names if not any(one.startswith(f"{other}.") for other in names)]


class ReceptiveField(NamedTuple):
    """What a layer's units see, height and width each."""

    size: tuple[int, int]  # pixels that a unit sees
    stride: tuple[Fraction, Fraction]  # pixels from one unit to the next; below 1 where maps exceed the input
    start: tuple[int, int]  # first pixel that unit 0 sees; negative where it sees over the border
    step: int  # windows of the input that begin at multiples of it give the same units as the whole

    def box(self, y: int, x: int) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of what a unit sees, the last two exclusive; may reach over the image's borders."""
        top, left = (math.floor(self.stride[a] * unit) + self.start[a] for a, unit in enumerate((y, x)))
        return top, left, top + self.size[0], left + self.size[1]

    def center(self, place: Place, size: Sequence[int]) -> tuple[int, int]:
        """Row and column of the middle of what a unit sees in an image of that height and width."""
        box = self.box(place.y, place.x)
        return tuple(min(max(0, (box[axis] + box[axis + 2]) // 2), size[axis] - 1) for axis in (0, 1))


def receptive_field(network: nn.Module, layer: str, channels: int, limit: int) -> ReceptiveField:
    """The receptive field of a layer's units: where the gradient on the input, of so many channels, is not zero.

    Measured on a copy with positive weights, so that nothing cancels out, and without norms and activations: a norm
    over the whole image lets every unit see it all. Behind upsampling, units differ by less than `step`. No field
    larger than ``limit``, the largest side of an image, is looked for.
    """
    features = FeatureExtractor(_linear_copy(network), layer)
    step = math.lcm(1, *(getattr(part, "multiple", 1) for part in network.modules()))
    side = max(4, math.ceil(64 / step)) * step
    while True:
        # Deep down, the corner of a field weighs less than single precision can tell from 0.
        x = torch.ones(1, channels, side, side, dtype=torch.float64, requires_grad=True)
        maps = features(x)
        box = _seen(maps, x, 0)
        if side >= limit or (min(box[:2]) > 0 and max(box[2:]) < side):
            break
        side *= 2
    stride = tuple(Fraction(side, units) for units in maps.shape[2:])
    shift = [after - before for before, after in zip(box, _seen(maps, x, 1), strict=True)]
    if shift == [max(1, round(each)) for each in stride] * 2:
        stride = tuple(map(Fraction, shift[:2]))  # the last pixels of a side may be left over
    start = tuple(box[axis] - math.floor(stride[axis] * (maps.shape[2 + axis] // 2)) for axis in (0, 1))
    step = math.lcm(step, *(each.numerator for each in stride))
    return ReceptiveField((box[2] - box[0], box[3] - box[1]), stride, start, step)


def _seen(maps: Tensor, x: Tensor, offset: int) -> tuple[int, int, int, int]:
    """The pixels that a unit sees, so many rows and columns behind the center."""
    y, column = (min(units // 2 + offset, units - 1) for units in maps.shape[2:])
    (gradient,) = torch.autograd.grad(maps[0, :, y, column].sum(), x, retain_graph=True)
    seen = gradient[0].ne(0).any(dim=0)
    rows, columns = (seen.any(dim=axis).nonzero().flatten().tolist() or [0] for axis in (1, 0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


@torch.no_grad()
def _linear_copy(network: nn.Module) -> nn.Module:
    twin = deepcopy(network).cpu().double().eval()
    for part in twin.modules():
        if isinstance(part, _NORMS) or type(part).__module__ in _POINTWISE:
            part.forward = nn.Identity().forward
        elif isinstance(part, nn.MaxPool2d):  # it lets through one pixel alone
            part.forward = nn.AvgPool2d(part.kernel_size, part.stride, part.padding).forward
    for parameter in twin.parameters():
        if parameter.dim() > 1:
            parameter.fill_(len(parameter) / parameter.numel())
        else:
            parameter.abs_()
    return twin


class Place(NamedTuple):
    """A unit with a strong activation: row and column in its feature map, for the image of that number."""

    value: float
    image: int
    y: int
    x: int


class Strongest:
    """The places where each feature map is most active, updated batch by batch.

    Of one image only places whose receptive fields overlap by half at most, `count` for each map.
    """

    def __init__(self, field: ReceptiveField, count: int = BEST) -> None:
        self.field, self.count = field, count
        self.reach = [max(1, math.ceil(size / stride / 2)) for size, stride in zip(*field[:2], strict=True)]
        self._values = self._places = self._lowest = None  # (maps, n), (maps, n, 3: image, y, x), (maps,)

    @torch.no_grad()
    def update(self, maps: Tensor, images: Sequence[int]) -> None:
        """Look at the feature maps (B, maps, h, w) of the images of these numbers."""
        for single, image in zip(maps.float(), images, strict=True):
            width, lowest = single.shape[2], single.amin((1, 2))
            peaks = single.masked_fill(~self._peaks(single), -math.inf).flatten(1)
            values, at = peaks.topk(min(self.count, peaks.shape[1]), dim=1)
            places = torch.stack([torch.full_like(at, image), at // width, at % width], dim=2)
            if self._values is not None:
                values, places = torch.cat([self._values, values], 1), torch.cat([self._places, places], 1)
                lowest = torch.minimum(self._lowest, lowest)
            self._values, order = values.topk(min(self.count, values.shape[1]), dim=1)
            self._places, self._lowest = places.gather(1, order[..., None].expand(-1, -1, 3)), lowest

    def _peaks(self, maps: Tensor) -> Tensor:
        """Where no other place within reach is higher; of a plateau, its first place alone."""
        spread = (maps.amax(dim=(1, 2)) - maps.amin(dim=(1, 2)))[:, None, None]
        ramp = torch.linspace(0, 1, maps[0].numel(), device=maps.device).view(maps.shape[1:])
        maps = maps - ramp * torch.where(spread > 0, 1e-4 * spread, 1)
        reach = [min(reach, side - 1) for reach, side in zip(self.reach, maps.shape[1:], strict=True)]
        return maps >= F.max_pool2d(maps, [2 * each + 1 for each in reach], stride=1, padding=reach)

    def places(self, maps: int) -> dict[int, list[Place]]:
        """Of the maps that are most active on average, strongest first: their places, likewise; constant maps never."""
        if self._values is None:
            return {}
        present = self._values.isfinite()
        mean = self._values.where(present, 0).sum(1) / present.sum(1).clamp_min(1)
        order = mean.argsort(descending=True, stable=True).tolist()
        chosen = [number for number in order if self._values[number, 0] > self._lowest[number]][:maps]
        found = {}
        for number in chosen:
            entries = zip(self._values[number].tolist(), self._places[number].tolist(), strict=True)
            found[number] = [Place(value, *place) for value, place in entries if math.isfinite(value)]
        return found

    @property
    def constant(self) -> int:
        """How many maps are the same at every place of every image."""
        return 0 if self._values is None else int((self._values[:, 0] <= self._lowest).sum())


@contextmanager
def frozen_norms(features: FeatureExtractor, x: Tensor) -> Iterator[None]:
    """Group and instance norms keep the statistics that the image x gives them, whatever passes through.

    A part of the image then has the activations that it has in the whole.
    """
    norms = {name: module for name, module in features.network.named_modules() if _is_over_image(module)}
    with torch.no_grad(), recorded(norms) as passes:
        features(x)
    handles = []
    for name, maps, _ in passes:
        channels = maps.shape[1]
        groups = getattr(norms[name], "num_groups", channels)
        statistics = torch.var_mean(maps.reshape(groups, -1), dim=1, correction=0)
        var, mean = (part.repeat_interleave(channels // groups) for part in statistics)
        handles.append(norms[name].register_forward_hook(partial(_normalize, mean, var)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_over_image(module: nn.Module) -> bool:
    instance = isinstance(module, nn.modules.instancenorm._InstanceNorm) and not module.track_running_stats
    return instance or isinstance(module, nn.GroupNorm)


def _normalize(mean: Tensor, var: Tensor, norm: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
    return F.batch_norm(args[0], mean, var, norm.weight, norm.bias, eps=norm.eps)


def attribute(features: FeatureExtractor, x: Tensor, baseline: Tensor, unit: tuple[int, int, int]) -> Tensor:
    """How much each pixel of x (1, C, H, W) raises or lowers one unit (map, row, column): (H, W).

    Integrated gradients (Sundararajan et al. 2017): all pixels sum to the activation less that for the baseline.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(features)
    parts = method.attribute(x, baselines=baseline, target=unit, n_steps=IG_STEPS, internal_batch_size=IG_BATCH)
    return parts[0].detach().sum(dim=0).float()


def draw_features(
    places: dict[int, list[Place]],
    field: ReceptiveField,
    features: FeatureExtractor,
    baseline: Tensor,
    load: Callable[[int], tuple[Tensor, Tensor]],
    title: str,
) -> Figure:
    """For each map the patches that activate it most, and beside them what in them matters.

    Of what a unit could see it mostly uses the center (Luo et al. 2016): patches are cut to what it does use.

    Args:
        places: map -> its places.
        field: of the layer.
        features: the network up to the layer.
        baseline: (1, C, 1, 1), an input without content: the mean of the training images.
        load: an image's number -> its input (1, C, H, W), and its view (1 or 3, H, W) in [0, 1] for a person.
        title: of the figure.
    """
    wanted = [(number, place) for number, some in places.items() for place in some]
    radius = max(field.size) // 2 + field.step
    found: dict[tuple[int, Place], Tensor] = {}
    for image, group in itertools.groupby(sorted(wanted, key=lambda one: one[1].image), lambda one: one[1].image):
        x, _ = load(image)
        with frozen_norms(features, x):
            for number, place in group:
                part, unit, center = _part(number, place, field, x)
                values = attribute(features, part, baseline.expand_as(part), unit).cpu()
                found[number, place] = _window(values, center, radius, 0.0)
    reach = _reach(torch.stack(list(found.values())), max(field.size) // 2)
    figure = new_figure(12, 3.2 * math.ceil(len(places) / 2) + 1)
    size = 2 * reach + 1
    figure.suptitle(
        f"{title}\nleft: the {BEST} patches that activate each map most, strongest first; {size} x {size} of the "
        f"{field.size[0]} x {field.size[1]} pixels that a unit could see\n"
        "right: what in the patch raises (red) or lowers (blue) the activation, by integrated gradients"
    )
    axes = figure.subplots(math.ceil(len(places) / 2), 4, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for position, (number, some) in enumerate(places.items()):
        left, right = axes.flat[2 * position], axes.flat[2 * position + 1]
        views = [load(place.image)[1].expand(3, -1, -1) for place in some]
        patches = [
            _window(view, field.center(place, view.shape[-2:]), reach, 0.5)
            for place, view in zip(some, views, strict=True)
        ]
        left.imshow(make_grid(patches, nrow=3, padding=1, pad_value=1).permute(1, 2, 0).numpy())
        left.set_title(f"map {number}: {some[0].value:.3g} to {some[-1].value:.3g}", fontsize=10)
        maps = [_window(found[number, place], (radius, radius), reach, 0.0) for place in some]
        maps = [part / part.abs().flatten().quantile(LOUD).clamp_min(1e-12) for part in maps]  # each on its own scale
        signed = make_grid([part[None] for part in maps], nrow=3, padding=1)[0]
        right.imshow(signed.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    return figure


def _part(
    number: int, place: Place, field: ReceptiveField, x: Tensor
) -> tuple[Tensor, tuple[int, int, int], tuple[int, int]]:
    """A part of x that holds all that a unit sees, that unit in it, and the center of what it sees."""
    top, left, bottom, right = field.box(place.y, place.x)
    step = field.step  # a margin of it: behind upsampling, units differ in what they see
    top, left = (max(0, edge - step) // step * step for edge in (top, left))
    part = x[..., top : -(-(bottom + step) // step) * step, left : -(-(right + step) // step) * step]
    unit = (number, place.y - int(top / field.stride[0]), place.x - int(left / field.stride[1]))
    y, column = field.center(place, x.shape[-2:])
    return part, unit, (y - top, column - left)


def _window(image: Tensor, center: tuple[int, int], radius: int, fill: float) -> Tensor:
    """The square of (..., H, W) around a place, filled outside the image."""
    y, x = center
    side = 2 * radius + 1
    return F.pad(image, (radius,) * 4, value=fill)[..., y : y + side, x : x + side]


def _reach(attributions: Tensor, limit: int) -> int:
    """Pixels from the center within which attributions (N, S, S) have SHARE of their weight, on average."""
    weight = attributions.abs() / attributions.abs().sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    away = (torch.arange(weight.shape[1]) - weight.shape[1] // 2).abs()
    frames = torch.bincount(torch.maximum(away[:, None], away).flatten(), weight.mean(dim=0).flatten().double())
    return min(limit, max(MIN_REACH, int((frames.cumsum(0) < SHARE).sum())))
