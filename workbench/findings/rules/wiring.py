"""What is put together wrongly: no setting of a rate can fix it."""

from __future__ import annotations

from workbench.findings.engine import Level
from workbench.findings.finding import Finding
from workbench.findings.history import History, Parameter
from workbench.findings.progress import TrainingRule
from workbench.findings.rules.layers import blocked_units


class GradientsNotCleared(TrainingRule):
    """The gradients of one step are still there when those of the next are added."""

    code = "gradients-not-cleared"
    level = Level.WIRING
    count = 3  # steps that have to be seen: a validation in between clears gradients, whatever the loop does
    share = 0.6

    def find(self, history: History) -> Finding | None:
        for network, carried in history.table("carried").items():
            latest = carried.finite().tail(8).values
            found = sum(value > 0 for value in latest)
            if found >= self.count and found >= self.share * len(latest):
                advice = (
                    "Gradients of earlier steps are added to those of each new one: call optimizer.zero_grad() before "
                    "every backward pass, and leave LightningModule.optimizer_zero_grad as it is. To add up batches on "
                    f"purpose, accumulate gradients{history.model.key('--trainer.accumulate_grad_batches 4')}."
                )
                return self.report(history, network, found / len(latest), advice)
        return None


class ParametersUnchanged(TrainingRule):
    """A tensor that should be trained is not: its optimizer steps, its rate is not 0, and yet it stays as it is."""

    code = "parameters-unchanged"
    level = Level.WIRING
    implied_by = frozenset({"learning-rate-high", "regularization-dominates", "exploding-gradients", "nonfinite-loss"})
    count = 4  # measured steps, beyond those whose gradients were not finite (AMP leaves such steps out)
    faint = 1e-6  # where gradients are this much smaller than the largest, those of 0 have vanished: another fault

    def find(self, history: History) -> Finding | None:
        parameters = {**history.model.parameters, **history.model.unfrozen}
        reasons = {name: self._reason(history, name, p) for name, p in parameters.items() if not p.helper}
        stuck = {name: reason for name, reason in reasons.items() if reason is not None}
        zero = [name for name, reason in stuck.items() if reason == "its gradient is 0"]
        if zero and self._explained(history, {parameters[name].network for name in zero}):
            stuck = {name: reason for name, reason in stuck.items() if name not in zero}
        if not stuck:
            return None
        name, reason = next(iter(stuck.items()))
        where = name + (f" (and {len(stuck) - 1} more tensors)" if len(stuck) > 1 else "")
        advice = (
            f"{name} is trainable and is not trained: {reason}. Look for .detach(), torch.no_grad() or .item() between "
            "it and the loss, and for parameters that configure_optimizers leaves out; to keep it as it is on purpose, "
            "set requires_grad to False."
        )
        return self.report(history, where, f"unchanged: {reason}", advice, limit="changes at every step")

    def _reason(self, history: History, name: str, parameter: Parameter) -> str | None:
        if parameter.optimizer is None:
            steps = sum(len(series) for key, series in history.scalars.items() if key.startswith("lr/"))
            return "no optimizer holds it" if steps >= self.count else None
        gradient, missing = history.row("gradient", name), history.row("missing", name)
        if len(missing) >= self.count and not len(gradient):
            return "it gets no gradient"
        usable = gradient.finite().tail(2 * self.count)
        if parameter.role != "weight" or len(usable) < self.count:
            return None  # a bias before a norm has no gradient but rounding errors, and all is well
        if not any(usable.values):
            # Only where it has never been anything else: steps that are too large kill units as well.
            return "its gradient is 0" if not any(gradient.finite().values) else None
        moved = history.row("moved", name).tail(2 * self.count)
        if len(moved) >= self.count and not any(moved.values) and len(gradient.finite()) == len(gradient):
            return "its optimizer does not move it"
        return None

    def _explained(self, history: History, networks: set[str]) -> bool:
        """Whether gradients of 0 come from units that are dead or saturated, or have vanished on their way."""
        for network in networks:
            medians = [series.finite().median() for series in history.rows("gradient", network).values()]
            present = [value for value in medians if value > 0]
            if not present or not (blocked_units(history) or min(present) < self.faint * max(present)):
                return False
        return True


class LabelsSwapped(TrainingRule):
    """The discriminator learns to tell the two apart the wrong way round, and both sides are content."""

    code = "labels-swapped"
    level = Level.WIRING
    implied_by = frozenset({"learning-rate-high"})
    steps = 30
    content = 0.45  # share of its first loss below which a side is winning; LSGAN is at half of it in balance
    both = 0.2  # the same for both sides at once
    count = 12

    def find(self, history: History) -> Finding | None:
        real, fake = history["train/score_real"], history["train/score_fake"]
        if not history.model.adversarial or len(real) < self.count:
            return None
        gaps = [r - f for r, f in zip(real.values, fake.values, strict=False)][-self.count :]
        start = history.start("train/discriminator", 3)
        now = history["train/discriminator"].recent(self.count)
        # A critic without bounds (Wasserstein) wins by a loss below 0.
        won = now < self.content * start if start > 0 else start <= 0 and now < 0
        reversed_ = bool(gaps) and sum(gap < 0 for gap in gaps) / len(gaps) >= 0.9
        if not (reversed_ and won) and not self._both_content(history):
            return None
        gap = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
        fix = history.model.key("pass (real, fake) in that order to model.init_args.adversarial's discriminator loss")
        advice = (
            "The discriminator scores real images below generated ones, and is content with it: its labels are "
            f"swapped. Label real images 1 and generated ones 0{fix}."
        )
        return self.report(history, "discriminator", gap, advice, limit="score_real above score_fake")

    def _both_content(self, history: History) -> bool:
        """Whether both losses are near 0, which is impossible for sides that want the opposite."""
        for name in ("train/discriminator", "train/adversarial"):
            latest = history[name].tail(self.count).values
            if len(latest) < self.count or not 0 <= max(latest) < self.both * history.start(name, 3):
                return False
        return True


class DiscriminatorLeaks(TrainingRule):
    """The discriminator's backward pass reaches the generator."""

    code = "discriminator-leaks"
    level = Level.WIRING
    count = 2

    def find(self, history: History) -> Finding | None:
        for network, leaked in history.table("leaked").items():
            latest = leaked.finite().tail(8).values
            found = [value for value in latest if value > 0]
            if len(found) >= self.count and len(found) > len(latest) / 2:
                advice = (
                    f"The discriminator's loss sends gradients into {network}, which then learns to help it: give the "
                    "discriminator fake.detach(), and clear the generator's gradients before its own backward pass."
                )
                return self.report(history, network, max(found), advice)
        return None
