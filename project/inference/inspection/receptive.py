"""Which pixels of its input a unit of a layer can see at all: measured by gradients, so for any network."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from project.inference.inspection.layers import UpTo

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; the last two are the first ones outside."""
START = 64
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
_NO_MIXING = ("torch.nn.modules.activation", "torch.nn.modules.dropout")


@dataclass(frozen=True)
class ReceptiveField:
    """The same for all units of a layer, but for where they lie.

    Attributes:
        stride: Pixels from one unit to the next, along the height and the width.
        start: First pixel that unit 0 sees; negative, as it sees over the border.
        size: Height and width of what a unit sees, in pixels.
        step: Windows of the input that begin at multiples of this give the same units as the whole.
    """

    stride: tuple[Fraction, Fraction]
    start: tuple[int, int]
    size: tuple[int, int]
    step: int

    def box(self, y: int, x: int) -> Box:
        """What the unit at row y and column x of its map sees; may reach over the image's borders."""
        top, left = (
            math.floor(stride * place) + start
            for stride, place, start in zip(self.stride, (y, x), self.start, strict=True)
        )
        return top, left, top + self.size[0], left + self.size[1]


def measure(network: nn.Module, name: str, channels: int, most: int) -> ReceptiveField:
    """The receptive field of a layer's units: where the gradient on the input is not zero.

    It is taken of a copy of the network whose weights are all positive, so that nothing cancels out, and without norms
    and activations: a norm over the whole image lets every unit see it all, which says nothing of where it looks.
    Behind layers that enlarge their maps, units differ in what they see; then it is what any of them may see.

    Args:
        network: The network; stays as it is.
        name: Of the layer.
        channels: Of the network's input.
        most: Largest side of an image: no larger field is looked for.
    """
    twin = UpTo(_transparent(network), name)
    step = math.lcm(1, *(getattr(part, "multiple", 1) for part in network.modules()))
    side = max(4, math.ceil(START / step)) * step
    while True:
        # Deep down, the corner of a field weighs less than single precision can tell from 0.
        x = torch.ones(1, channels, side, side, dtype=torch.float64, requires_grad=True)
        maps = twin(x)
        box = _seen(maps, x)
        if side >= most or (min(box[:2]) > 0 and max(box[2:]) < side):
            break
        side *= 2
    units = maps.shape[2:]
    stride = tuple(Fraction(side, number) for number in units)
    shifts = [other - own for own, other in zip(box, _seen(maps, x, 1), strict=True)]
    if shifts == [max(1, round(each)) for each in stride] * 2:
        stride = tuple(Fraction(shift) for shift in shifts[:2])  # the last pixels of a side may be left over
        step = math.lcm(step, *shifts)
    else:
        step = math.lcm(step, *(each.numerator for each in stride))
        period = range(max(1, min(math.ceil(step / min(stride)), min(units) // 2)))
        alike = [
            [edge - shift * place for edge, shift in zip(_seen(maps, x, place), stride * 2, strict=True)]
            for place in period
        ]
        first, last = ([function(edges) for edges in zip(*alike, strict=True)] for function in (min, max))
        box = (*map(math.floor, first[:2]), *map(math.ceil, last[2:]))
    middle = [number // 2 for number in units]
    start = tuple(box[axis] - math.floor(stride[axis] * middle[axis]) for axis in (0, 1))
    return ReceptiveField(stride, start, (box[2] - box[0], box[3] - box[1]), step)


def _seen(maps: Tensor, x: Tensor, offset: int = 0) -> Box:
    """The pixels that a unit sees, so many rows and columns behind the middle one."""
    y, column = (min(units // 2 + offset, units - 1) for units in maps.shape[2:])
    (gradient,) = torch.autograd.grad(maps[0, :, y, column].sum(), x, retain_graph=True)
    seen = gradient[0].ne(0).any(dim=0)
    rows, columns = (seen.any(dim=axis).nonzero().flatten().tolist() or [0] for axis in (1, 0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _transparent(network: nn.Module) -> nn.Module:
    twin = deepcopy(network).cpu().double().eval()
    for name, part in list(twin.named_modules()):
        if isinstance(part, _NORMS) or type(part).__module__ in _NO_MIXING:
            _replace(twin, name, nn.Identity())
        elif isinstance(part, nn.MaxPool2d):  # it lets through one pixel alone
            _replace(twin, name, nn.AvgPool2d(part.kernel_size, part.stride, part.padding))
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.dim() > 1:
                parameter.fill_(len(parameter) / parameter.numel())
            else:
                parameter.abs_()
    return twin


def _replace(network: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    if name:
        setattr(network.get_submodule(parent), own, part)
