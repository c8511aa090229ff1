"""What is wrong with the batches, as loader, data module and the network's normalization make them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.findings.checks.context import CheckContext, first_tensor, floats_of, with_nonzero_weights
from workbench.findings.engine import Found, Passed, Result, Skipped
from workbench.task import input_of

FIRST_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
UNUSABLE_INPUT = frozenset({"input-nonfinite", "input-range", "input-constant"})


def input_nonfinite(context: CheckContext) -> Result:
    """NaN or infinite values in what the model gets."""
    for number, batch in enumerate(context.batches):
        for name, values in floats_of(batch).items():
            finite = torch.isfinite(values)
            if not bool(finite.all()):
                where = f"{name} of training batch {number}, sample {int((~finite).nonzero()[0, 0])}"
                advice = "NaN or infinity reaches the network: look for a division by 0 or log(0) in the data module."
                return Found(where, 1 - finite.float().mean().item(), 0.0, advice)
    return Passed(0.0, 0.0)


def input_constant(context: CheckContext) -> Result:
    """One value in a whole batch, or in a channel of all images."""
    least, limit = float("inf"), 1e-4  # standard deviation
    advice = "One value only: nothing can be learned from it. Look at the data, and at what makes them into batches."
    for name in ("input", "target"):
        pairs = [(found[name], batch) for batch in context.batches if name in (found := floats_of(batch))]
        parts = [context.signal(values, batch) if name == "input" else values for values, batch in pairs]
        if parts and parts[0].ndim >= 4:
            std = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1).float().std(dim=1)
            least = min(least, std.min().item())
            if least < limit:
                return Found(f"channel {int(std.argmin())} of the {name}", least, limit, advice)
        # A target of few numbers, such as a class, may well be the same for a whole batch.
        least = min([least, *(part.float().std().item() for part in parts if part[0].numel() > 1)])
        if least < limit:
            return Found(f"the {name} of a whole batch", least, limit, advice)
    return Passed(least, limit)


def batch_repeated(context: CheckContext) -> Result:
    """The same samples again and again, in the same order, or with the same noise."""
    repeated = _repeated_order(context) or _repeated_noise(context)
    advice = "Shuffle the training loader, and draw random numbers from one generator that is never seeded anew."
    return Found(*repeated, "each batch its own", advice) if repeated else Passed(0, 0)


def _repeated_order(context: CheckContext) -> tuple[str, str] | None:
    first, second = ([(_digests(raw), _order(raw)) for raw in context.raw_batches(epoch)] for epoch in (0, 1))
    # Blank crops and single samples of a few may well come twice.
    several = [tuple(sorted(parts)) for parts, _ in first if len(set(parts)) > 1]
    again = len(several) - len(set(several))
    if again > 0:
        return "training batches of one epoch", f"{again} of {len(several)}"
    draws = [draw for _, numbers in first for draw in numbers]
    if len(draws) >= 6 and len(set(draws)) > 2:  # two short orders may agree by chance
        if [parts for parts, _ in first] == [parts for parts, _ in second]:
            return "epochs 0 and 1", "the same values in the same order"
        if draws == [draw for _, numbers in second for draw in numbers]:
            return "epochs 0 and 1", "the same order"
    return None


def _repeated_noise(context: CheckContext) -> tuple[str, str] | None:
    noise = []  # what is added to the target to make the input
    for batch in context.batches[:4]:
        found = floats_of(batch)
        if "input" in found and "target" in found:
            given = context.signal(found["input"], batch).float()
            noise += [given - found["target"].float()] if given.shape == found["target"].shape else []
    for one, other in itertools.pairwise(noise):
        if one.shape == other.shape and one.std() > 1e-3 and (one - other).abs().max() < 1e-5:
            return "the noise of two training batches", "the same"
    return None


def _digests(raw: Any) -> tuple[bytes, ...]:
    """A hash of each sample's first tensor."""
    samples = np.ascontiguousarray(first_tensor(raw).cpu().numpy())
    return tuple(hashlib.blake2b(sample.tobytes(), digest_size=8).digest() for sample in samples)


def _order(raw: Any) -> tuple[Any, ...]:
    """Which samples a batch holds: their numbers, or else their hashes."""
    index = getattr(raw, "index", None)
    return tuple(index.tolist()) if isinstance(index, Tensor) else _digests(raw)


def input_not_centered(context: CheckContext, far: float = 1.0, least: float = 0.5, most: float = 4.0) -> Result:
    """What reaches the first layer with weights: near mean 0 and standard deviation 1 is what layers start for.

    A mean up to ``far`` and a deviation of ``least`` to ``most`` is no more than a note: unlike samples, strong noise.
    """
    if any(name.endswith("normalize_encoder") for name, _ in context.main.module.named_modules()):
        return Skipped("pretrained weights bring their own normalization: see pretrained-range")
    found = reaching(context, lambda name, module: isinstance(module, FIRST_LAYERS))
    if found is None:
        return Skipped("the input meets no layer with weights on its way through the network")
    values = torch.cat([part.flatten() for part in found[1]])
    mean, std = values.mean().item(), values.std().item()
    value, limit = f"mean {mean:.2f}, std {std:.2f}", "mean within 0.2, std 0.5 to 2.0"
    if std < 1e-4:
        return Skipped("the first layer gets one value only, whatever the sample")
    if abs(mean) <= 0.2 and 0.5 <= std <= 2.0:
        return Passed(value, limit)
    advice = "Subtract the training data's mean from the input, and divide by its standard deviation."
    return Found(found[0], value, limit, advice, is_fault=abs(mean) > far or not least <= std <= most)


class _Reached(Exception):
    """Ends a pass: the remaining layers would only take time."""


def reaching(context: CheckContext, wanted: Callable[[str, nn.Module], bool]) -> tuple[str, list[Tensor]] | None:
    """The full name of the first of the wanted modules that the input meets in the main network, in training mode; and
    what reaches it of each batch, as float32 on the CPU: the signal's channels (B, C, H, W), or whatever it gets.
    """
    model = with_nonzero_weights(context.model)
    heard: list[tuple[str, Tensor]] = []

    def listen(name: str, args: tuple) -> None:
        heard.append((context.main.full_name(name), args[0]))
        raise _Reached

    for name, module in model.get_submodule(context.main.path).train().named_modules():
        if wanted(name, module):
            module.register_forward_pre_hook(lambda module, args, name=name: listen(name, args))
    found = []
    for batch in context.batches:
        with context.inference(), contextlib.suppress(_Reached):
            model(input_of(batch))
        if not heard:
            return None
        name, values = heard.pop()
        found.append(context.signal(values, batch).float().cpu())
    return name, found
