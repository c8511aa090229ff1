"""Whether the model can learn at all: where its loss starts, what it counts, and a handful of images by heart."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from project.data.batch import Batch
from project.models import GANColorizer
from workbench.findings.checks.check import Check, Outcome
from workbench.findings.checks.overfit import Trial, answer_of, error_of, overfit, quiet
from workbench.findings.checks.subject import Subject
from workbench.findings.rule import Level

SPOILT = frozenset({"input-nonfinite", "input-range", "input-constant"})


@contextlib.contextmanager
def unlogged(model: LightningModule) -> Iterator[None]:
    """Within it ``self.log`` does nothing: outside of a loop Lightning would refuse it."""
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    model.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.log, model.log_dict


def constants(pair: Batch) -> dict[str, float]:
    """The errors (root mean square) of the answers that need no network: doing nothing, and the mean color."""
    target = pair.target.float()
    errors = {"mean": error_of(target.mean((0, 2, 3), keepdim=True).expand_as(target), target)}
    baseline = getattr(pair, "baseline", None)
    if isinstance(baseline, Tensor) and baseline.shape == target.shape:
        errors["nothing"] = error_of(baseline, target)
    return errors


class InitialLoss(Check):
    """A first answer that is far worse than a constant one."""

    code = "initial-loss"
    floor = Level.SYMPTOM
    limit = 6.0
    """Times the error of the mean image or of doing nothing, whichever is larger."""

    def look(self, seen: Subject) -> Outcome:
        model, pair = seen.model, seen.batch
        training = model.training
        model.train()
        state = copy.deepcopy(model.state_dict())
        try:
            with torch.no_grad(), seen.autocast(), unlogged(model):
                error = error_of(answer_of(model, pair), pair.target)
        finally:
            model.load_state_dict(state)
            model.train(training)
        known = constants(pair)
        reference = max(known.values())
        ratio = error / max(reference, 1e-6)
        limit = f"{self.limit:g} x {reference:.3g}"
        if ratio <= self.limit:
            return self.passed(f"{error:.3g} ({ratio:.2g} x a constant answer)", limit)
        return self.fault(
            0,
            "the first answer's error (root mean square)",
            error if error == error else "nan",
            limit,
            "Before training the answer is far worse than a constant one. Set residual: true in "
            "model.init_args.network.init_args, start the last layer smaller, or bring the output back to the "
            "images' range (project.networks.normalize.Normalized).",
        )


class LossNotMean(Check):
    """A loss that doubles with the batch."""

    code = "loss-not-mean"
    floor = Level.WIRING
    follows = SPOILT | {"eval-not-deterministic", "batch-mixing"}
    limit = 1.5

    def look(self, seen: Subject) -> Outcome:
        found = dict(self._ratios(seen))
        if not found:
            return self.skipped("the model has no loss to call")
        where = max(found, key=lambda name: found[name])
        if found[where] <= self.limit:
            return self.passed(found[where], self.limit)
        return self.fault(
            0,
            where,
            found[where],
            self.limit,
            "The loss grows with the batch, so a rate fits one batch size only. Set reduction: mean in "
            f"{self._key(where)}.init_args, or divide by the number of values.",
        )

    @staticmethod
    def _key(where: str) -> str:
        return f"model.init_args.{where}" if where != "training_step" else "model.init_args.loss"

    def _ratios(self, seen: Subject) -> Iterator[tuple[str, float]]:
        model, pair = seen.model, seen.several(4)
        for name, arguments in self._losses(seen, pair):
            loss = getattr(model, name.split(".")[0])
            call = getattr(loss, name.split(".")[1]) if "." in name else loss
            with torch.no_grad():
                yield name, _ratio(call(*arguments), call(*[torch.cat([a, a]) for a in arguments]))
        if model.automatic_optimization:
            with contextlib.suppress(Exception):  # a trial run tells what is wrong with a training_step
                yield "training_step", self._step(seen, pair)

    def _losses(self, seen: Subject, pair: Batch) -> Iterator[tuple[str, list[Tensor]]]:
        model = seen.model
        wanted = seen.encode(pair.target)
        guess = (wanted + 0.1 * torch.randn_like(wanted)).float()
        for name in ("loss", "reconstruction"):
            if isinstance(getattr(model, name, None), nn.Module):
                yield name, [guess, wanted]
        if getattr(model, "discriminator", None) is not None and hasattr(model, "adversarial"):
            logits = torch.randn(len(guess), 1, 3, 3, device=guess.device)
            yield "adversarial.discriminator", [logits, -logits]
            yield "adversarial.generator", [logits]

    def _step(self, seen: Subject, pair: Batch) -> float:
        model = copy.deepcopy(seen.model)
        model.trainer = seen.trainer
        doubled = Batch(*[None if part is None else torch.cat([part, part]) for part in pair])
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
        losses = []
        with unlogged(model), seen.autocast(), quiet():
            for batch in (pair, doubled):
                torch.manual_seed(0)
                step = model.training_step(batch, 0)
                losses.append(step["loss"] if isinstance(step, dict) else step)
        return _ratio(*losses)


def _ratio(one: Tensor, two: Tensor) -> float:
    """By what factor the second differs from the first, 1 for the same."""
    one, two = float(one.detach()), float(two.detach())
    return 1 + abs(two - one) / max(abs(one), 1e-12)


class CannotOverfit(Check):
    """A handful of images that a copy of the model does not learn by heart."""

    code = "cannot-overfit"
    floor = Level.SYMPTOM
    follows = frozenset({"initial-loss", "unreadable-image"})
    pictures = 4
    pixels = 4 * 64 * 64
    steps = 250
    seconds = 18.0
    good = 0.5
    """Of the better constant answer's error: reached, the trial ends."""
    limit = 0.85
    """Of the same: what is below it has learned something."""
    halfway = 0.6
    """Of the mean image's error and of the first answer's: the same, where doing nothing is hard to beat."""
    rate = 1e-3
    clear = 0.1
    """How often a discriminator may take a made image for a true one: reached, its trial ends."""
    confused = 0.35
    """The same, above which it has learned nothing; 0.5 is chance."""

    def look(self, seen: Subject) -> Outcome:
        pair = self._handful(seen)
        known = constants(pair)
        reference = max(min(known.values()), 1e-6)
        highest = max(known.values())
        options = {"enough": self.good * reference, "steps": self.steps, "seconds": self.seconds}
        state = copy.deepcopy(seen.model.state_dict())
        own = overfit(seen.pristine, state, pair, seen.trainer, **options)
        if self._learned(own, reference, highest):
            return self._adversary(seen, pair, state) or self.passed(self._share(own, reference), self.limit)
        other = own if own.problem else overfit(seen.pristine, state, pair, seen.trainer, rate=self.rate, **options)
        where = f"{len(pair.input)} images, {own.steps} steps"
        if self._learned(other, reference, highest):
            return self.note(
                0,
                where,
                self._share(own, reference),
                self.limit,
                f"The network learns a handful of images with Adam at {self.rate:g}, but not with its own optimizer. "
                "Try another rate: lr: 1.0e-3 in model.init_args.optimizer.init_args (of a GAN: generator_optimizer).",
            )
        reason = f" ({own.problem})" if own.problem else ""
        return self.fault(
            0,
            where,
            self._share(own, reference),
            self.limit,
            f"The error stays near that of a constant answer{reason}. Mend this first: look for detached outputs, the "
            "wrong target, a wrong sign of model.init_args.loss; only then try a wider network, widths: [32, 64, 128].",
        )

    def _handful(self, seen: Subject) -> Batch:
        """A few training images, not augmented, and made into pairs as in evaluation: the same at every step."""
        if not hasattr(seen.data, "dataset") or not hasattr(seen.data, "make_batch"):
            return seen.several(self.pictures, self.pixels)
        from project.data.augment import Augment, Augmenter

        dataset = seen.data.dataset("train", training=True)
        still = Augment(hflip=False, vflip=False, quarter_turns=False)
        dataset.augmenter = Augmenter(still, getattr(seen.data, "crop", None))
        first = dataset[0]
        height, width = first.image.shape[-2:]
        count = max(1, min(self.pictures, len(dataset), self.pixels // (height * width)))
        numbers = torch.linspace(0, len(dataset) - 1, count).long().tolist()
        try:
            raw = dataset.__getitems__(numbers)
        except Exception:  # whole images of several sizes
            raw = first
        return seen.pair(raw, training=False)

    def _adversary(self, seen: Subject, pair: Batch, state: dict[str, Tensor]) -> Outcome | None:
        """What there is to say of a discriminator, alone against the generator's first answers."""
        model = seen.model
        if not isinstance(model, GANColorizer) or getattr(model, "discriminator", None) is None:
            return None
        options = {"enough": self.clear, "steps": self.steps, "seconds": self.seconds, "adversary": True}
        trial = overfit(seen.pristine, state, pair, seen.trainer, **options)
        if not trial.last <= self.confused:
            trial = overfit(seen.pristine, state, pair, seen.trainer, rate=self.rate, **options)
        if trial.last <= self.confused:
            return None
        return self.fault(
            0,
            "discriminator",
            trial.last,
            self.confused,
            "The discriminator does not learn to tell a few true images from the generator's first, empty ones. "
            "Look for swapped labels, detached logits, and model.init_args.adversarial; "
            "model.init_args.discriminator_optimizer.init_args.lr: 4.0e-4 is usual.",
        )

    def _learned(self, trial: Trial, reference: float, highest: float) -> bool:
        if not trial.errors or trial.problem:
            return False
        return trial.best <= max(self.limit * reference, self.halfway * min(trial.errors[0], highest))

    @staticmethod
    def _share(trial: Trial, reference: float) -> float:
        return trial.best / reference if trial.best == trial.best else float("inf")
