"""Whether the model can learn at all: where its loss starts, what it counts, and whether it overfits a few samples."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from workbench.findings.checks.context import CheckContext, concatenate, judge
from workbench.findings.checks.trial import Trial, overfit, trial_copy, without_dropout
from workbench.findings.engine import Found, Passed, Result, Skipped
from workbench.task import baseline_of, discriminators_of, input_of, networks_of, target_of


def rms_error(output: Tensor, target: Tensor) -> float:
    """The root mean square error, in the target's units."""
    return float((output.detach().float() - target.float()).square().mean().sqrt())


def output_of(model: LightningModule, batch: Any) -> Any:
    """What a model makes of a batch."""
    return model.predict_and_loss(batch)[0] if hasattr(model, "predict_and_loss") else model(input_of(batch))


def is_regression(output: Any, target: Any) -> bool:
    """Whether output and target can be subtracted; 0 and 1 alone are labels, whose logits are no estimates of them."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor) or output.shape != target.shape:
        return False
    return target.is_floating_point() and not bool(((target == 0) | (target == 1)).all())


def constant_errors(batch: Any) -> list[float]:
    """The errors of the outputs that need no network: the mean of each channel and, if known, doing nothing."""
    target, baseline = target_of(batch).float(), baseline_of(batch)
    mean = target.mean([dim for dim in range(target.ndim) if dim != 1], keepdim=True)
    known = isinstance(baseline, Tensor) and baseline.shape == target.shape
    return [rms_error(mean.expand_as(target), target)] + ([rms_error(baseline, target)] if known else [])


def discriminator_error_rate(model: LightningModule, batch: Any) -> float:
    """How often a discriminator scores a generated sample above a true one: 0.5 is chance, 0 never."""
    true, generated = (scores.float().flatten() for scores in model.discriminator_scores(batch))
    return float((true[:, None] <= generated[None, :]).float().mean())


def unlogged(model: LightningModule) -> LightningModule:
    """A copy in training mode whose ``self.log`` does nothing: outside of a loop Lightning would refuse it."""
    model = copy.deepcopy(model).train()
    model.log = model.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    return model


def initial_loss(context: CheckContext) -> Result:
    """A first output that is far worse than a constant one: the mean target or doing nothing, whichever is worse."""
    target = target_of(context.batch)
    with context.inference():
        output = output_of(unlogged(context.model), context.batch)
    if not is_regression(output, target):
        return Skipped("output and target cannot be subtracted")
    error, reference, most = rms_error(output, target), max(constant_errors(context.batch)), 6.0
    ratio, limit = error / max(reference, 1e-6), f"{most:g} x {reference:.3g}"
    if ratio <= most:
        return Passed(f"{error:.3g} ({ratio:.2g} x a constant output)", limit)
    advice = "Start the last layer smaller, or bring its output to the targets' range."
    return Found("the first output's error (root mean square)", error, limit, advice)


def loss_not_mean(context: CheckContext) -> Result:
    """A loss that doubles with the batch."""
    found = [(ratio, f"model.{name}") for name, ratio in _ratios(context)]
    advice = "Take the mean instead of the sum: only then does a learning rate fit every batch size."
    return judge(*max(found), 1.5, advice) if found else Skipped("no loss to call")


def _ratios(context: CheckContext) -> Iterator[tuple[str, float]]:
    """By what factor each loss differs for a batch that holds everything twice."""
    batch = context.batch_of(4)
    for name, loss, arguments in _losses(context.model, context.target(batch)):
        with torch.no_grad(), contextlib.suppress(Exception):  # one that takes something else
            yield name, _ratio(loss(*arguments), loss(*[torch.cat([a, a]) for a in arguments]))
    if not context.model.automatic_optimization:
        return
    model = unlogged(context.model)
    model.trainer = context.trainer
    without_dropout(model)
    losses = []
    # A trial run reports what is wrong with a training_step.
    with context.trainer.precision_plugin.forward_context(), contextlib.suppress(Exception):
        for some in (batch, concatenate(batch, batch)):
            torch.manual_seed(0)
            step = model.training_step(some, 0)
            losses.append(step["loss"] if isinstance(step, dict) else step)
        yield "training_step", _ratio(*losses)


def _losses(model: LightningModule, target: Any) -> Iterator[tuple[str, Callable, list[Tensor]]]:
    """The model's losses by their usual names, with arguments; a training_step by hand cannot be called alone."""
    if not isinstance(target, Tensor) or not target.is_floating_point():
        return
    estimate = (target + 0.1 * torch.randn_like(target)).float()
    logits = torch.randn(len(estimate), 1, 3, 3, device=estimate.device)
    adversarial = getattr(model, "adversarial", None) if discriminators_of(model, networks_of(model)) else None
    for name in ("loss", "criterion", "reconstruction"):
        if isinstance(getattr(model, name, None), nn.Module):
            yield name, getattr(model, name), [estimate, target]
    for name, arguments in (("discriminator", [logits, -logits]), ("generator", [logits])):
        if callable(getattr(adversarial, name, None)):
            yield f"adversarial.{name}", getattr(adversarial, name), arguments


def _ratio(one: Tensor, two: Tensor) -> float:
    one, two = float(one.detach()), float(two.detach())
    return 1 + abs(two - one) / max(abs(one), 1e-12)


SAMPLES, PIXELS, STEPS, SECONDS = 4, 4 * 64 * 64, 250, 18.0  # of a trial run, at most
RATE = 1e-3


def cannot_overfit(context: CheckContext, batch: Any = None) -> Result:
    """A few samples, or a given batch, that a copy of the model cannot overfit."""
    batch = context.batch_of(SAMPLES, PIXELS) if batch is None else batch
    limit = 0.85  # of the better constant output's error, or of the first loss: what is below it has learned something
    state = copy.deepcopy(context.model.state_dict())
    errors, error, output = [], None, None
    with context.inference(), contextlib.suppress(Exception):  # a forward that takes something else
        output = output_of(copy.deepcopy(context.model).eval(), batch)
    if is_regression(output, target_of(batch)):
        errors, error = constant_errors(batch), lambda model: rms_error(output_of(model, batch), target_of(batch))
    elif not context.model.automatic_optimization:
        return Skipped("no target to compare the output with, nor one loss to follow")
    reference = max(min(errors), 1e-6) if errors else 0.0

    def trial(network: str, error: Callable | None, enough: float, rate: float | None = None) -> Trial:
        made = Trial(error, enough, STEPS, SECONDS, rate)
        return overfit(trial_copy(context.pristine, state, network), batch, context.trainer, made)

    def has_learned(result: Trial) -> bool:
        # Where doing nothing is hard to beat, part of the way from the mean target and the first output counts too.
        halfway = 0.6 * min(result.first, max(errors)) if errors else 0.0
        return not result.problem and result.best <= max(limit * (reference or result.first), halfway)

    enough = 0.5 * reference if errors else -math.inf
    own = trial(context.main.name, error, enough)
    if own.problem and not own.started:
        return Skipped(f"a trial run could not start: {own.problem}")
    if not errors and own.first <= 0:
        return Skipped("a loss that may be negative has no value to compare with")
    share = own.best / (reference or own.first)
    if has_learned(own):
        return _discriminator_deaf(context, batch, trial) or Passed(share, limit)
    where = f"{SAMPLES} samples, {own.steps} steps"
    advice = "Look for detached outputs, the wrong target, a wrong sign of the loss; then try a larger network."
    if own.problem:
        return Found(f"{where}: {own.problem}", share, limit, advice)
    if has_learned(trial(context.main.name, error, enough, RATE)):
        advice = "A few samples are learned with Adam at 1e-3, but not with its own optimizer: try another lr."
        return Found(where, share, limit, advice, is_fault=False)
    return Found(where, share, limit, advice)


def _discriminator_deaf(context: CheckContext, batch: Any, trial: Callable[..., Trial]) -> Found | None:
    """What there is to report of a discriminator that trains alone, against the generator's first outputs."""
    critics = discriminators_of(context.model, networks_of(context.model))
    if not critics or not hasattr(context.model, "discriminator_scores"):
        return None
    clear, confused = 0.1, 0.35  # error rates: at which its trial ends; above which it has learned nothing
    for rate in (None, RATE):
        result = trial(critics[0], lambda model: discriminator_error_rate(model, batch), clear, rate)
        if result.last <= confused:
            return None
    advice = "Look for swapped labels and detached scores, and at the discriminator's learning rate."
    return Found(critics[0], result.last, confused, advice)
