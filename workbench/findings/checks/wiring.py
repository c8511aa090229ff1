"""What is wired wrongly: seen by what an untrained network does with its input."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from workbench.findings.checks.context import CheckContext, Part, judge, with_nonzero_weights
from workbench.findings.checks.weights import LAYERS
from workbench.findings.engine import Found, Passed, Result, Skipped

MAX_CHANNELS = 64
TRANSPARENT = (nn.Identity, nn.modules.dropout._DropoutNd)


def largest(values: Tensor) -> float:
    """The largest absolute value, 0 where there is none."""
    return float(values.detach().float().abs().max()) if values.numel() else 0.0


def eval_not_deterministic(context: CheckContext) -> Result:
    """Two passes in eval mode that differ."""
    found = []
    with context.inference():
        for part in context.parts:
            network = with_nonzero_weights(part.module)
            one, other = part.run(network), part.run(network)
            found.append((largest(one - other) / max(largest(one), 1e-6), part.name))
    limit = 1e-4  # of the output's largest value: what the order of additions may change
    return judge(*max(found), limit, "Tie dropout and noise to self.training: F.dropout(x, p, self.training).")


def input_ignored(context: CheckContext) -> Result:
    """An output that does not depend on the input, or on one of its channels."""
    least, limit = 1.0, 1e-6  # of the output's largest value
    advice = "The output is the same where this input is 0: {} is overwritten, detached or multiplied by 0."
    for part in context.parts:
        network, given = with_nonzero_weights(part.module), part.input
        channels = range(min(given.shape[1], MAX_CHANNELS) if given.ndim > 1 else 0)
        with torch.no_grad():
            output = part.run(network)
            for channel in (None, *(channel for channel in channels if largest(given[:, channel]) > 1e-6)):
                without = given.clone()
                without[:, channel] = 0  # None: all of them
                where = part.name if channel is None else f"{part.name}, channel {channel} of its input"
                change, body = _change(output, part.run(network, without), given - without)
                least = min(least, change)
                if change <= limit:
                    return Found(where, change, limit, advice.format("it"))
                if channel is None and body is not None and body <= limit:
                    return Found(where, body, limit, advice.format("what is added to the input"))
    return Passed(least, limit)


def _change(output: Tensor, changed: Tensor, by: Tensor) -> tuple[float, float | None]:
    """How much the output changes, and how much of that is more than the change of the input itself."""
    scale, body = max(largest(output), 1e-6), None
    if output.ndim == by.ndim > 1 and output.shape[2:] == by.shape[2:] and output.shape[1] <= by.shape[1]:
        passed_on = by[:, : output.shape[1]]
        if largest(passed_on) > 0:  # a rounding error of the sum itself is no dependence
            body = max(0.0, largest(output - changed - passed_on) / scale - 4e-7)
    return largest(output - changed) / scale, body


def batch_mixing(context: CheckContext) -> Result:
    """One sample's output that depends on another sample of the batch, in eval mode."""
    parts = [part for part in context.parts if len(part.input) > 1 and part.input.is_floating_point()]
    if not parts:
        return Skipped("no batch of several floating-point inputs")
    worst, where = max((_gradient_on_others(part), part.name) for part in parts)
    advice = "Look for view, reshape and means over dimension 0, and for a batch norm kept in training mode."
    return judge(worst, where, 1e-6, advice)


def _gradient_on_others(part: Part) -> float:
    """The first output's gradient on the other samples, as a share of that on its own."""
    given = part.input.detach().clone().requires_grad_()
    output = part.run(with_nonzero_weights(part.module), given)
    if output.ndim == 0 or len(output) != len(given):
        return 1.0
    if not output.requires_grad:
        return 0.0
    weights = torch.randn(output[0].shape, generator=torch.Generator().manual_seed(0)).to(output.device)
    (gradient,) = torch.autograd.grad((output[0] * weights).sum(), given, allow_unused=True)
    if gradient is None or not bool(gradient[1:].any()):
        return 0.0
    return largest(gradient[1:]) / max(largest(gradient[0]), 1e-12)


def missing_nonlinearity(context: CheckContext) -> Result:
    """Linear layers with nothing between, and so one: two in one block, or three in a row wherever they stand.

    Halving, doubling, 1 x 1 and grouped convolutions are steps of their own by design, and do not count.
    """
    limit = "an activation between"
    advice = "These layers follow each other without an activation, and are one layer. Put one between them."
    for part in context.parts:
        for chain in linear_chains(part, context):
            inside = [two for two in itertools.pairwise(chain) if len({n.rpartition(".")[0] for n in two}) == 1]
            if inside or len(chain) >= 3:
                names = inside[0] if inside else chain
                where = " -> ".join(map(part.full_name, names[:4]))
                return Found(where, f"{len(names)} linear layers in a row", limit, advice)
    return Passed("none in a row", limit)


def linear_chains(part: Part, context: CheckContext) -> list[list[str]]:
    """Names of layers of which each gets just what the one before gave, through norms and dropout at most."""
    # A tensor, its version when it was made (an activation in place raises it), and the layers that it came through.
    made: dict[int, tuple[Tensor, int, list[str]]] = {}
    chains: list[list[str]] = []

    def visit(name: str, module: nn.Module, args: tuple, output: Any) -> None:
        given = args[0] if args and isinstance(args[0], Tensor) else None
        has_children = any(True for _ in module.children()) and not isinstance(module, LAYERS)
        if has_children or given is None or not isinstance(output, Tensor):
            return
        tensor, version, chain = made.get(id(given), (None, -1, []))
        before = list(chain) if tensor is given and given._version == version else []
        if isinstance(module, LAYERS) and gains_nothing(module):
            before = [*before, name]
            chains.append(before)
        elif not isinstance(module, (nn.modules.conv._ConvNd, *TRANSPARENT)) and "Norm" not in type(module).__name__:
            before = []
        made[id(output)] = (output, output._version, before)

    with context.inference():
        part.trace(with_nonzero_weights(part.module), visit)
    return [chain for chain in chains if len(chain) > 1]


def gains_nothing(layer: nn.Module) -> bool:
    """Whether a layer gains nothing right behind another of its kind."""
    if isinstance(layer, nn.Linear):
        return layer.out_features >= layer.in_features  # a smaller one is the first half of a product of low rank
    return not layer.transposed and layer.groups == 1 and max(layer.kernel_size) > 1 and max(layer.stride) == 1


def output_range(context: CheckContext) -> Result:
    """Outputs that cannot reach the targets, however the last layer is trained."""
    part = context.main
    reach = None if part.target is None else _reach(part)
    if reach is None:
        return Skipped("no target that is like the output, or no layer with weights that moves it")
    low, high = reach
    targets = torch.cat([context.target(batch).float().flatten() for batch in context.batches])
    least, most = float(targets.min()), float(targets.max())
    slack = 0.02 * (most - least)  # a sigmoid never quite gets to its ends
    beyond = ((targets < low - slack) | (targets > high + slack)).float().mean().item()
    advice = f"Leave the last activation out, or map its range to that of the targets, {least:.3g} to {most:.3g}."
    return judge(beyond, f"{part.name}: {low:.3g} to {high:.3g}", 0.02, advice)


@torch.no_grad()
def _reach(part: Part) -> tuple[float, float] | None:
    """The least and the largest output, with the last layer's grown ten-thousandfold either way."""
    ran: list[nn.Module] = []
    network = with_nonzero_weights(part.module)
    usual = part.trace(network, lambda _, module, *__: ran.append(module) if isinstance(module, LAYERS) else None)
    if not ran or usual.shape != part.target.shape:
        return None
    ends, moved = [], 0.0
    for factor in (-1e4, 1e4):
        handle = ran[-1].register_forward_hook(lambda layer, args, y, f=factor: y * f + f * 0.01)
        output = part.run(network).float()
        handle.remove()
        moved = max(moved, largest(output - usual))
        ends += [output.min().item(), output.max().item()]
    return (min(ends), max(ends)) if moved > 0 else None
