"""What reaches the first layer with weights, whatever normalization stands before it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.subject import Subject
from workbench.findings.rule import Level

WITH_WEIGHTS = (nn.modules.conv._ConvNd, nn.Linear)


class InputNotCenterd(Check):
    """What reaches the first layer with weights: near mean 0 and standard deviation 1 is what layers start for."""

    code = "input-not-centred"
    floor = Level.DATA
    follows = frozenset({"input-nonfinite", "input-range", "input-constant", "statistics-not-from-train"})
    mean = 0.2
    spread = (0.5, 2.0)
    off = 1.0
    """A mean further off than this is a fault, where the spread is right: statistics go by pixels, batches by images,
    so that small sets of unlike images are seldom centerd."""
    wide = 4.0
    """A spread above this is: statistics are those of clean images, and strong noise adds to it."""
    far = 4.0
    """The same for [-1, 1], which somebody asked for, and for line art, whose white paper lies far from the gray of the
    images that it was drawn from."""

    def look(self, seen: Subject) -> Outcome:
        if any(name.endswith("normalize_encoder") for name, _ in seen.parts[0].module.named_modules()):
            return self.skipped("pretrained weights bring their own normalization: see pretrained-range")
        found = first_inputs(seen)
        if found is None:
            return self.skipped("no layer with weights was met on the way through the network")
        layer, mean, std = found
        value = f"mean {mean:.2f}, std {std:.2f}"
        limit = f"mean within {self.mean}, std {self.spread[0]} to {self.spread[1]}"
        if abs(mean) <= self.mean and self.spread[0] <= std <= self.spread[1]:
            return self.passed(value, limit)
        declared = getattr(seen.data, "input_range", "standardize") == "minus_one_one"
        if std < 1e-4:
            return self.skipped("the first layer gets one value only, whatever the image")
        tolerated = self.spread[0] <= std <= self.wide and abs(mean) <= self.off
        if declared or seen.colors:
            tolerated = abs(mean) <= self.far and std >= 0.1
        say = self.note if tolerated else self.fault
        advice = (
            "What the first layer gets is not centerd on 0 with a spread of 1. Set --data.input_range standardize, and "
            "wrap a network of your own in project.networks.normalize.Normalized."
        )
        if tolerated and getattr(seen.data, "input_range", "") == "standardize":
            advice = (
                "What the first layer gets is a little off: statistics go by pixels, batches by images. Where their "
                "sizes differ much, bring them to one: --data.resize 256. Strong noise and white paper do it too."
            )
        return say(0, layer, value, limit, advice)


class _Heard(Exception):
    """Ends a pass at the first layer: the rest of the network would only take time."""


def reaching(seen: Subject, wanted: Callable[[str, nn.Module], bool]) -> tuple[str, list[Tensor]] | None:
    """What reaches the first of some modules of the network that answers, of all batches at hand.

    Args:
        seen: Its network and batches.
        wanted: Of a module's name and the module, whether it is one of them.

    Returns:
        The module's name, and of each batch (B, C, H, W) float32 on the CPU: the channels that stem from images; or
        whatever it gets, where that has another shape. None where no pass comes by one.
    """
    part = seen.parts[0]
    network = part.woken().train()
    heard: list[tuple[str, Tensor]] = []

    def listen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            heard.append((name, args[0]))
            raise _Heard

        return hook

    for name, module in network.named_modules():
        if wanted(name, module):
            module.register_forward_pre_hook(listen(name))
    values, layer = [], ""
    for pair in seen.pairs:
        heard.clear()
        with torch.no_grad(), seen.autocast(), contextlib.suppress(_Heard):
            network(seen.to_memory_format(pair.input))
        if not heard:
            return None
        layer, given = heard[0]
        if given.ndim == 4 and given.shape[1] % pair.input.shape[1] == 0:
            stacked = given.shape[1] // pair.input.shape[1]  # by a pixel-unshuffle
            given = given[:, : part.pictures * stacked]
        values.append(given.float().cpu())
    return f"{part.name}.{layer}".rstrip("."), values


def first_inputs(seen: Subject) -> tuple[str, float, float] | None:
    """The name of the first layer with weights, and mean and std of the image channels that it gets."""
    found = reaching(seen, lambda name, module: isinstance(module, WITH_WEIGHTS))
    if found is None:
        return None
    layer, values = found
    everything = torch.cat([value.flatten() for value in values])
    return layer, everything.mean().item(), everything.std().item()
