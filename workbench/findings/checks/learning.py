"""Whether the model can learn at all: where its loss starts, what it counts, and whether it overfits a few samples."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from workbench.batch import baseline_of, input_of, target_of
from workbench.findings.checks.check import Check, Level, Outcome
from workbench.findings.checks.context import CheckContext, concatenate
from workbench.findings.checks.data import UNUSABLE_INPUT
from workbench.findings.checks.trial import OverfitResult, overfit, quiet, trial_copy, unlogged, without_dropout
from workbench.model_parts import discriminators_of, networks_of

LOSSES = ("loss", "criterion", "reconstruction")


def rms_error(output: Tensor, target: Tensor) -> float:
    """The root mean square error, in the target's units."""
    return float((output.detach().float() - target.float()).square().mean().sqrt())


def output_of(model: LightningModule, batch: Any) -> Tensor:
    """What a model makes of a batch."""
    return model.predict_and_loss(batch)[0] if hasattr(model, "predict_and_loss") else model(input_of(batch))


def is_regression(output: Any, target: Any) -> bool:
    """Whether output and target can be subtracted; 0 and 1 alone are labels, whose logits are no estimates of them."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor) or output.shape != target.shape:
        return False
    return target.is_floating_point() and not bool(((target == 0) | (target == 1)).all())


def constant_errors(batch: Any) -> dict[str, float]:
    """The errors of the outputs that need no network: doing nothing, and the mean of each channel."""
    target = target_of(batch).float()
    over = [dim for dim in range(target.ndim) if dim != 1]
    errors = {"mean": rms_error(target.mean(over, keepdim=True).expand_as(target), target)}
    baseline = baseline_of(batch)
    if isinstance(baseline, Tensor) and baseline.shape == target.shape:
        errors["nothing"] = rms_error(baseline, target)
    return errors


def discriminator_error_rate(model: LightningModule, batch: Any) -> float:
    """How often a discriminator scores a generated sample above a true one: 0.5 is chance, 0 never."""
    true, generated = (scores.float().flatten() for scores in model.discriminator_scores(batch))
    return float((true[:, None] <= generated[None, :]).float().mean())


class InitialLoss(Check):
    """A first output that is far worse than a constant one."""

    code = "initial-loss"
    level = Level.SYMPTOM
    limit = 6.0
    """Times the error of the mean target or of doing nothing, whichever is larger."""
    advice = (
        "Before training the output is far worse than a constant one. Start the last layer smaller, let the network "
        "predict the difference to its input [residual: true], or bring its output to the targets' range."
    )

    def evaluate(self, context: CheckContext) -> Outcome:
        model, batch = copy.deepcopy(context.model).train(), context.batch
        with context.inference(), unlogged(model):
            output = output_of(model, batch)
        if not is_regression(output, target_of(batch)):
            return self.skipped("output and target cannot be subtracted")
        error, reference = rms_error(output, target_of(batch)), max(constant_errors(batch).values())
        ratio = error / max(reference, 1e-6)
        limit = f"{self.limit:g} x {reference:.3g}"
        if ratio <= self.limit:
            return self.passed(f"{error:.3g} ({ratio:.2g} x a constant output)", limit)
        where = "the first output's error (root mean square)"
        return self.found(True, where, error if error == error else "nan", limit)


class LossNotMean(Check):
    """A loss that doubles with the batch."""

    code = "loss-not-mean"
    level = Level.WIRING
    implied_by = UNUSABLE_INPUT | {"eval-not-deterministic", "batch-mixing"}
    limit = 1.5
    advice = (
        "The loss grows with the batch, so a learning rate fits one batch size only. Take the mean [reduction: mean], or "
        "divide by the number of values."
    )

    def evaluate(self, context: CheckContext) -> Outcome:
        found = dict(self._ratios(context))
        if not found:
            return self.skipped("the model has no loss to call")
        where = max(found, key=lambda name: found[name])
        if found[where] <= self.limit:
            return self.passed(found[where], self.limit)
        return self.found(True, f"model.{where}", found[where], self.limit)

    def _ratios(self, context: CheckContext) -> Iterator[tuple[str, float]]:
        batch = context.batch_of(4)
        for name, loss, arguments in self._losses(context.model, context.target(batch)):
            with torch.no_grad(), contextlib.suppress(Exception):  # one that takes something else
                yield name, _ratio(loss(*arguments), loss(*[torch.cat([a, a]) for a in arguments]))
        if context.model.automatic_optimization:
            with contextlib.suppress(Exception):  # a trial run reports what is wrong with a training_step
                yield "training_step", self._step(context, batch)

    @staticmethod
    def _losses(model: LightningModule, target: Any) -> Iterator[tuple[str, Callable, list[Tensor]]]:
        if not isinstance(target, Tensor) or not target.is_floating_point():
            return
        estimate = (target + 0.1 * torch.randn_like(target)).float()
        for name in LOSSES:
            if isinstance(getattr(model, name, None), nn.Module):
                yield name, getattr(model, name), [estimate, target]
        adversarial = getattr(model, "adversarial", None)
        logits = torch.randn(len(estimate), 1, 3, 3, device=estimate.device)
        for name, arguments in (("discriminator", [logits, -logits]), ("generator", [logits])):
            if callable(getattr(adversarial, name, None)) and discriminators_of(model, networks_of(model)):
                yield f"adversarial.{name}", getattr(adversarial, name), arguments

    @staticmethod
    def _step(context: CheckContext, batch: Any) -> float:
        model = copy.deepcopy(context.model)
        model.trainer = context.trainer
        without_dropout(model)
        losses = []
        with unlogged(model), context.trainer.precision_plugin.forward_context(), quiet():
            for some in (batch, concatenate(batch, batch)):
                torch.manual_seed(0)
                step = model.training_step(some, 0)
                losses.append(step["loss"] if isinstance(step, dict) else step)
        return _ratio(*losses)


def _ratio(one: Tensor, two: Tensor) -> float:
    """By what factor the second differs from the first, 1 for the same."""
    one, two = float(one.detach()), float(two.detach())
    return 1 + abs(two - one) / max(abs(one), 1e-12)


class CannotOverfit(Check):
    """A few samples that a copy of the model cannot overfit."""

    code = "cannot-overfit"
    level = Level.SYMPTOM
    implied_by = frozenset({"initial-loss", "unreadable-image"})
    samples = 4
    pixels = 4 * 64 * 64
    steps = 250
    seconds = 18.0
    good = 0.5
    """Of the reference (the better constant output's error, or the first loss): reached, the trial ends."""
    limit = 0.85
    """Of the same: what is below it has learned something."""
    halfway = 0.6
    """Of the mean target's error and of the first output's: the same, where doing nothing is hard to beat."""
    rate = 1e-3
    clear = 0.1
    """A discriminator's error rate at which its trial ends."""
    confused = 0.35
    """The same, above which it has learned nothing; 0.5 is chance."""
    advice_rate = (
        f"The network overfits a few samples with Adam at {rate:g}, but not with its own optimizer. Try another "
        "learning rate [lr: 1.0e-3]."
    )
    advice_discriminator = (
        "The discriminator does not learn to tell a few true samples from the generator's first ones. Look for swapped "
        "labels and detached logits, and at its learning rate [discriminator_optimizer.init_args.lr: 4.0e-4]."
    )

    def evaluate(self, context: CheckContext) -> Outcome:
        batch = self.few_samples(context)
        state = copy.deepcopy(context.model.state_dict())
        errors, error, output = {}, None, None
        with context.inference(), contextlib.suppress(Exception):  # some forward takes something else
            output = output_of(copy.deepcopy(context.model).eval(), batch)
        if is_regression(output, target_of(batch)):
            errors, error = constant_errors(batch), lambda model: rms_error(output_of(model, batch), target_of(batch))
        elif not context.model.automatic_optimization:
            return self.skipped("no target to compare the output with, nor one loss to follow")

        def trial(rate: float | None = None) -> OverfitResult:
            model = trial_copy(context.pristine, state, context.main.name)
            enough = self.good * max(min(errors.values()), 1e-6) if errors else float("-inf")
            return overfit(model, batch, context.trainer, error=error, enough=enough, rate=rate, **self._length())

        own = trial()
        if own.problem and not own.started:
            return self.skipped(f"a trial run could not start: {own.problem}")
        if error is None and own.errors and own.errors[0] <= 0:
            return self.skipped("a loss that may be negative has no value to compare with")
        value, where = self._share(own, errors), f"{self.samples} samples, {own.steps} steps"
        if self._learned(own, errors):
            return self._discriminator(context, batch, state) or self.passed(value, self.limit)
        if not own.problem and self._learned(trial(self.rate), errors):
            return self.found(False, where, value, self.limit, self.advice_rate)
        reference, problem = "a constant output" if errors else "the first step", own.problem and f" ({own.problem})"
        advice = (
            f"The error stays near that of {reference}{problem}. Fix this first: look for detached outputs, the wrong "
            "target, a wrong sign of the loss; only then try a larger network."
        )
        return self.found(True, where, value, self.limit, advice)

    def few_samples(self, context: CheckContext) -> Any:
        """The batch to overfit."""
        return context.batch_of(self.samples, self.pixels)

    def _length(self) -> dict[str, Any]:
        return {"steps": self.steps, "seconds": self.seconds}

    def _discriminator(self, context: CheckContext, batch: Any, state: dict[str, Tensor]) -> Outcome | None:
        """What there is to report of a discriminator that trains alone, against the generator's first outputs."""
        critics = discriminators_of(context.model, networks_of(context.model))
        if not critics or not hasattr(context.model, "discriminator_scores"):
            return None
        for rate in (None, self.rate):
            model = trial_copy(context.pristine, state, critics[0])
            error = lambda model: discriminator_error_rate(model, batch)  # noqa: E731
            result = overfit(model, batch, context.trainer, error=error, enough=self.clear, rate=rate, **self._length())
            if result.last <= self.confused:
                return None
        return self.found(True, critics[0], result.last, self.confused, self.advice_discriminator)

    def _learned(self, result: OverfitResult, errors: dict[str, float]) -> bool:
        if not result.errors or result.problem:
            return False
        first = result.errors[0]
        if not errors:
            return result.best <= self.limit * first
        reference = max(min(errors.values()), 1e-6)
        return result.best <= max(self.limit * reference, self.halfway * min(first, max(errors.values())))

    @staticmethod
    def _share(result: OverfitResult, errors: dict[str, float]) -> float:
        reference = max(min(errors.values()), 1e-6) if errors else (result.errors or [1.0])[0]
        return result.best / reference if result.best == result.best else float("inf")
