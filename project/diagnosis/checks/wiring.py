"""What is put together wrongly: seen by what an untrained network does with its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from project.diagnosis.checks.check import Check, Outcome
from project.diagnosis.checks.subject import Part, Subject
from project.diagnosis.checks.weights import LAYERS
from project.diagnosis.rule import Floor

BROKEN_DATA = frozenset({"input-nonfinite", "input-constant"})


def strength(values: Tensor) -> float:
    """The largest absolute value, 0 where there is none."""
    return float(values.detach().float().abs().max()) if values.numel() else 0.0


class EvalNotDeterministic(Check):
    """Two passes in eval mode that differ."""

    code = "eval-not-deterministic"
    floor = Floor.WIRING
    follows = BROKEN_DATA
    limit = 1e-4
    """Of the answer's largest value: what the order of additions may change."""

    def look(self, seen: Subject) -> Outcome:
        worst, where = 0.0, ""
        with torch.no_grad(), seen.autocast():
            for part in seen.parts:
                network = part.woken()
                one, other = network(part.given), network(part.given)
                apart = strength(one - other) / max(strength(one), 1e-6)
                if apart > worst:
                    worst, where = apart, part.name
        if worst <= self.limit:
            return self.passed(worst, self.limit)
        return self.fault(
            0,
            where,
            worst,
            self.limit,
            "Two passes in eval mode differ, so scores change from look to look. Tie dropout and noise to "
            "self.training (F.dropout(x, p, self.training)), or switch them off: dropout: 0 in "
            "model.init_args.network.init_args.",
        )


class InputIgnored(Check):
    """An answer that does not depend on the input, or on one of its channels."""

    code = "input-ignored"
    floor = Floor.WIRING
    follows = BROKEN_DATA | {"eval-not-deterministic", "weights-constant"}
    limit = 1e-6
    """Of the answer's largest value, in double precision."""

    def look(self, seen: Subject) -> Outcome:
        least = 1.0
        for part in seen.parts:
            network, given = part.woken(), part.given
            with torch.no_grad():
                answer = network(given)
                change, body = self._change(network, given, answer, torch.zeros_like(given))
                if change <= self.limit:
                    return self._fault(part.name, change, "it")
                if body is not None and body <= self.limit:
                    return self._fault(part.name, body, "what is added to the input")
                least = min(least, change)
                for channel in range(given.shape[1]):
                    if given[:, channel].std() < 1e-6 and strength(given[:, channel]) < 1e-6:
                        continue
                    without = given.clone()
                    without[:, channel] = 0
                    change, _ = self._change(network, given, answer, without)
                    if change <= self.limit:
                        return self._fault(f"{part.name}, channel {channel} of its input", change, "it")
                    least = min(least, change)
        return self.passed(least, self.limit)

    @staticmethod
    def _change(network: nn.Module, given: Tensor, answer: Tensor, other: Tensor) -> tuple[float, float | None]:
        """How much the answer changes, and how much of that is more than the change of the input itself."""
        changed = network(other)
        scale = max(strength(answer), 1e-6)
        body = None
        if answer.shape[2:] == given.shape[2:] and answer.shape[1] <= given.shape[1] and answer.ndim == given.ndim:
            passed_on = (given - other)[:, : answer.shape[1]]
            if strength(passed_on) > 0:
                # A rounding error of the sum itself is no dependence.
                body = max(0.0, strength(answer - changed - passed_on) / scale - 4e-7)
        return strength(answer - changed) / scale, body

    def _fault(self, where: str, value: float, what: str) -> Outcome:
        return self.fault(
            0,
            where,
            value,
            self.limit,
            f"The answer stays the same where this input is 0: {what} is overwritten, detached or multiplied by 0 on "
            "the way. Follow it through forward; model.init_args.network.init_args.in_channels has to count it.",
        )


class BatchMixing(Check):
    """One picture's answer that depends on another picture of the batch, in eval mode."""

    code = "batch-mixing"
    floor = Floor.WIRING
    follows = BROKEN_DATA | {"eval-not-deterministic"}
    limit = 1e-6
    """Gradient on the other pictures against that on the picture itself."""

    def look(self, seen: Subject) -> Outcome:
        worst, where = 0.0, ""
        for part in seen.parts:
            if len(part.given) < 2:
                return self.skipped("a batch of one picture mixes nothing")
            share = self._share(part)
            if share > worst:
                worst, where = share, part.name
        if worst <= self.limit:
            return self.passed(worst, self.limit)
        return self.fault(
            0,
            where,
            worst,
            self.limit,
            "The answer to one picture depends on the others of its batch (data.batch_size), also in eval mode. Look "
            "for view, reshape, permute, means and softmax over dimension 0, and for a batch norm kept in training "
            "mode.",
        )

    def _share(self, part: Part) -> float:
        network = part.woken()
        given = part.given[:4].detach().clone().requires_grad_()
        answer = network(given)
        if answer.ndim == 0 or len(answer) != len(given):
            return 1.0
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(answer[0].shape, generator=generator).to(answer.device)
        if not answer.requires_grad:
            return 0.0
        (gradient,) = torch.autograd.grad((answer[0] * weights).sum(), given, allow_unused=True)
        if gradient is None:
            return 0.0
        return strength(gradient[1:]) / max(strength(gradient[0]), 1e-12) if strength(gradient[1:]) > 0 else 0.0


class MissingNonlinearity(Check):
    """Linear layers that follow each other with nothing between, and so are one.

    Meant are convolutions over neighbours and matrices that keep the resolution: two in one block, or three in a row
    wherever they stand. Halving, doubling, 1 x 1 and grouped convolutions are steps of their own by design.
    """

    code = "missing-nonlinearity"
    floor = Floor.WIRING
    chain = 3

    def look(self, seen: Subject) -> Outcome:
        looked = 0
        for part in seen.parts:
            chains, count = linear_chains(part, seen)
            looked += count
            for chain in chains:
                inside = [pair for pair in zip(chain, chain[1:], strict=False) if _block(pair[0]) == _block(pair[1])]
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

    def hook(name: str, module: nn.Module):  # noqa: ANN202 torch's own type has no name
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
    return (
        not layer.transposed
        and layer.groups == 1
        and max(layer.kernel_size) > 1
        and max(layer.stride) == 1
    )


def _is_step(layer: nn.Module) -> bool:
    """Whether a chain goes on through a layer that is not counted in it: one that halves, doubles or joins."""
    return not isinstance(layer, nn.Linear)


class OutputRange(Check):
    """Answers that cannot reach the targets, however the last layer is trained."""

    code = "output-range"
    floor = Floor.WIRING
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
            return self.skipped("no last layer with weights was found")
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
        lows, highs = [], []

        def grow(factor: float):  # noqa: ANN202
            def hook(layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
                return output * factor + factor * 0.01

            return hook

        for factor in (-1e4, 1e4):
            handle = ran[-1].register_forward_hook(grow(factor))
            with torch.no_grad():
                answer = network(part.given).float()
            handle.remove()
            lows.append(answer.min().item())
            highs.append(answer.max().item())
        return min(lows), max(highs)
