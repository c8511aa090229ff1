"""What is put together wrongly: seen by what an untrained network does with its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.subject import Part, Subject
from workbench.findings.rule import Level

BROKEN_DATA = frozenset({"input-nonfinite", "input-constant"})


def strength(values: Tensor) -> float:
    """The largest absolute value, 0 where there is none."""
    return float(values.detach().float().abs().max()) if values.numel() else 0.0


class EvalNotDeterministic(Check):
    """Two passes in eval mode that differ."""

    code = "eval-not-deterministic"
    floor = Level.WIRING
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
    floor = Level.WIRING
    follows = BROKEN_DATA | {"eval-not-deterministic", "weights-constant", "output-range"}
    limit = 1e-6
    """Of the answer's largest value."""

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
    """One image's answer that depends on another image of the batch, in eval mode."""

    code = "batch-mixing"
    floor = Level.WIRING
    follows = BROKEN_DATA | {"eval-not-deterministic"}
    limit = 1e-6
    """Gradient on the other images against that on the image itself."""

    def look(self, seen: Subject) -> Outcome:
        worst, where = 0.0, ""
        for part in seen.parts:
            if len(part.given) < 2:
                return self.skipped("a batch of one image mixes nothing")
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
            "The answer to one image depends on the others of its batch (data.batch_size), also in eval mode. Look "
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
