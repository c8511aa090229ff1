"""Norms over the whole image, held still: a part of it then goes through a network as it does in the whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from project.inference.inspection.layers import UpTo


@contextmanager
def norms_of(features: UpTo, x: Tensor) -> Iterator[None]:
    """While it lasts, group and instance norms use the statistics that an image gives them, whatever passes through.

    Without that, every unit depends a little on every pixel, and a patch alone gives other activations than in its
    image. A batch norm in evaluation is of that kind already, a layer norm over the channels looks at one pixel.

    Args:
        features: The network as far as the layer of interest.
        x: (1, C, H, W), the image.
    """
    kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, given: tuple[Tensor], answer: Tensor) -> None:
        maps = given[0].detach()
        groups = module.num_groups if isinstance(module, nn.GroupNorm) else maps.shape[1]
        var, mean = torch.var_mean(maps.reshape(1, groups, -1), dim=2, correction=0)
        each = maps.shape[1] // groups
        kept[module] = tuple(
            part.repeat_interleave(each, dim=1)[..., None, None] for part in (mean, (var + module.eps).rsqrt())
        )

    def use(module: nn.Module, given: tuple[Tensor], answer: Tensor) -> Tensor:
        mean, scale = kept[module]
        maps = (given[0] - mean) * scale
        if module.weight is None:
            return maps
        return maps * module.weight[:, None, None] + module.bias[:, None, None]

    norms = [module for module in features.network.modules() if _is_over_picture(module)]
    for hook in (keep, use):
        handles = [norm.register_forward_hook(hook) for norm in norms if hook is keep or norm in kept]
        try:
            if hook is keep:
                with torch.no_grad():
                    features(x)
            else:
                yield
        finally:
            for handle in handles:
                handle.remove()


def _is_over_picture(module: nn.Module) -> bool:
    instance = isinstance(module, nn.modules.instancenorm._InstanceNorm) and not module.track_running_stats
    return instance or isinstance(module, nn.GroupNorm)
