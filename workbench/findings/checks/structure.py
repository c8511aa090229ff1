"""What no training can mend in a network's form: layers that are one, answers that cannot reach the targets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.subject import Part, Subject
from workbench.findings.checks.weights import LAYERS
from workbench.findings.checks.wiring import BROKEN_DATA, strength
from workbench.findings.rule import Level


class MissingNonlinearity(Check):
    """Linear layers that follow each other with nothing between, and so are one.

    Meant are convolutions over neighbors and matrices that keep the resolution: two in one block, or three in a row
    wherever they stand. Halving, doubling, 1 x 1 and grouped convolutions are steps of their own by design.
    """

    code = "missing-nonlinearity"
    floor = Level.WIRING
    chain = 3

    def look(self, seen: Subject) -> Outcome:
        looked = 0
        for part in seen.parts:
            chains, count = linear_chains(part, seen)
            looked += count
            for chain in chains:
                inside = [pair for pair in itertools.pairwise(chain) if _block(pair[0]) == _block(pair[1])]
                if inside or len(chain) >= self.chain:
                    names = inside[0] if inside else chain
                    return self.fault(
                        0,
                        " -> ".join(f"{part.name}.{name}" for name in names[:4]),
                        f"{len(names)} linear layers in a row",
                        "an activation between",
                        "These layers follow each other without an activation, and are one layer. Put one between "
                        "them; in a UNet, activation: relu in model.init_args.network.init_args.",
                    )
        return self.passed(f"{looked} layers", "an activation between")


def _block(name: str) -> str:
    return name.rpartition(".")[0]


TRANSPARENT = (nn.Identity, nn.modules.dropout._DropoutNd)


def linear_chains(part: Part, seen: Subject) -> tuple[list[list[str]], int]:
    """Names of layers of which each gets just what the one before gave (through norms and dropout at most)."""
    network = part.woken()
    # A tensor, its version when it was made (an activation in place raises it), and the layers that it came through.
    made: dict[int, tuple[Tensor, int, list[str]]] = {}
    chains: list[list[str]] = []
    count = 0

    def hook(name: str, module: nn.Module) -> Callable[..., None]:
        def behind(module: nn.Module, args: tuple, output: object) -> None:
            nonlocal count
            given = args[0] if args and isinstance(args[0], Tensor) else None
            if given is None or not isinstance(output, Tensor):
                return
            tensor, version, chain = made.get(id(given), (None, -1, []))
            before = list(chain) if tensor is given and given._version == version else []
            if isinstance(module, LAYERS):
                count += 1
                if _counts(module):
                    before = [*before, name]
                    chains.append(before)
                elif not _is_step(module):
                    before = []
            elif not (isinstance(module, TRANSPARENT) or "Norm" in type(module).__name__):
                before = []
            made[id(output)] = (output, output._version, before)

        return behind

    for name, module in network.named_modules():
        if not any(True for _ in module.children()) or isinstance(module, LAYERS):
            module.register_forward_hook(hook(name, module))
    with torch.no_grad(), seen.autocast():
        network(part.given[:2])
    return [chain for chain in chains if len(chain) > 1], count


def _counts(layer: nn.Module) -> bool:
    """Whether a layer is one that gains nothing right behind another of its kind."""
    if isinstance(layer, nn.Linear):
        return layer.out_features >= layer.in_features  # a smaller one is the first half of a product of low rank
    return not layer.transposed and layer.groups == 1 and max(layer.kernel_size) > 1 and max(layer.stride) == 1


def _is_step(layer: nn.Module) -> bool:
    """Whether a chain goes on through a layer that is not counted in it: one that halves, doubles or joins."""
    return not isinstance(layer, nn.Linear)


class OutputRange(Check):
    """Answers that cannot reach the targets, however the last layer is trained."""

    code = "output-range"
    floor = Level.WIRING
    follows = BROKEN_DATA | {"input-range", "eval-not-deterministic"}
    limit = 0.02
    """Share of the targets' values that are out of reach."""
    slack = 0.02
    """Of the targets' range: a sigmoid never quite gets to its ends."""

    def look(self, seen: Subject) -> Outcome:
        part = seen.parts[0]
        if part.wanted is None:
            return self.skipped("no targets")
        reach = self._reach(part, seen)
        if reach is None:
            return self.skipped("no layer with weights moves the answer")
        low, high = reach
        targets = torch.cat([seen.encode(pair.target).float().flatten() for pair in seen.pairs])
        slack = self.slack * float(targets.max() - targets.min())
        beyond = ((targets < low - slack) | (targets > high + slack)).float().mean().item()
        if beyond <= self.limit:
            return self.passed(beyond, self.limit)
        return self.fault(
            0,
            f"{part.name}: {low:.3g} to {high:.3g}",
            beyond,
            self.limit,
            f"So many of the targets' values ({float(targets.min()):.3g} to {float(targets.max()):.3g}) can never be "
            "answered. Leave the last activation out, or map its range to that of the targets, as "
            "project.networks.normalize.Normalized does for --data.input_range.",
        )

    def _reach(self, part: Part, seen: Subject) -> tuple[float, float] | None:
        """The least and the largest answer, with the last layer's weights grown a thousandfold either way."""
        network = part.woken()
        ran: list[nn.Module] = []
        for layer in network.modules():
            if isinstance(layer, LAYERS):
                layer.register_forward_hook(lambda layer, args, output: ran.append(layer))
        with torch.no_grad():
            network(part.given[:2])
        if not ran:
            return None
        with torch.no_grad():
            usual = network(part.given).float()
        lows, highs, moved = [], [], 0.0

        def grow(factor: float) -> Callable[..., Any]:
            def hook(layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
                return output * factor + factor * 0.01

            return hook

        for factor in (-1e4, 1e4):
            handle = ran[-1].register_forward_hook(grow(factor))
            with torch.no_grad():
                answer = network(part.given).float()
            handle.remove()
            moved = max(moved, strength(answer - usual))
            lows.append(answer.min().item())
            highs.append(answer.max().item())
        return (min(lows), max(highs)) if moved > 0 else None
