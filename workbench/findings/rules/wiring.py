"""What is put together wrongly: no setting of a rate can mend it."""

from __future__ import annotations

from workbench.findings.finding import Finding
from workbench.findings.history import History, Parameter
from workbench.findings.rule import Level, Rule
from workbench.findings.rules.units import blocked_units
from workbench.findings.series import Series


class GradientsNotCleared(Rule[History]):
    """The gradients of one step are still there when those of the next are added."""

    code = "gradients-not-cleared"
    floor = Level.WIRING
    looks = 3
    """So many steps in a row have to be seen: a validation in between clears gradients, whatever the loop does."""
    share = 0.6

    def look(self, seen: History) -> Finding | None:
        for network, carried in seen.table("carried").items():
            latest = carried.finite().tail(8)
            found = [value for value in latest.values if value > 0]
            if len(found) >= self.looks and len(found) >= self.share * len(latest):
                value = len(found) / len(latest)
                return self.fault(
                    seen.step,
                    network,
                    value,
                    0.0,
                    "The gradients of earlier steps are added to those of each new one: call optimizer.zero_grad() "
                    "before every backward pass, and leave LightningModule.optimizer_zero_grad as it is. To add up "
                    "batches on purpose, set --trainer.accumulate_grad_batches 4.",
                )
        return None


class ParametersUnchanged(Rule[History]):
    """A tensor that should be trained is not: its optimizer steps, its rate is not 0, and yet it stays as it is."""

    code = "parameters-unchanged"
    floor = Level.WIRING
    follows = frozenset({"learning-rate-high", "regularization-dominates", "exploding-gradients", "nonfinite-loss"})
    looks = 4
    """Steps that have to be measured, beyond those whose gradients were no numbers (AMP leaves such steps out)."""
    faint = 1e-6
    """Where gradients this much smaller than the largest of a network turn up, those of 0 have vanished: another fault.
    """

    def look(self, seen: History) -> Finding | None:
        stuck: dict[str, str] = {}
        everything = {**seen.facts.parameters, **seen.facts.later}
        for name, parameter in everything.items():
            reason = None if parameter.helper else self._reason(seen, name, parameter)
            if reason is not None:
                stuck[name] = reason
        zero = [name for name, reason in stuck.items() if reason == "its gradient is 0"]
        if zero and self._explained(seen, {everything[name].network for name in zero}):
            stuck = {name: reason for name, reason in stuck.items() if name not in zero}
        if not stuck:
            return None
        name, reason = next(iter(stuck.items()))
        more = f" (and {len(stuck) - 1} more tensors)" if len(stuck) > 1 else ""
        return self.fault(
            seen.step,
            name + more,
            f"unchanged: {reason}",
            "changes at every step",
            f"{name} is trainable and is not trained: {reason}. Look for .detach(), torch.no_grad() or .item() between "
            "it and the loss, and for parameters that configure_optimizers leaves out; to keep it as it is on "
            "purpose, set requires_grad to False.",
        )

    def _reason(self, seen: History, name: str, parameter: Parameter) -> str | None:
        if parameter.optimizer is None:
            steps = sum(len(series) for key, series in seen.scalars.items() if key.startswith("lr/"))
            return "no optimizer holds it" if steps >= self.looks else None
        gradient, missing = seen.table("gradient").get(name, Series()), seen.table("missing").get(name, Series())
        if len(missing) >= self.looks and not len(gradient):
            return "it gets no gradient"
        usable = gradient.finite().tail(2 * self.looks)
        if parameter.role != "weight" or len(usable) < self.looks:
            return None  # a bias before a norm has no gradient but rounding errors, and all is well
        if not any(usable.values):
            # Only where it has never been anything else: steps that are too large put units to death as well.
            return "its gradient is 0" if not any(gradient.finite().values) else None
        moved = seen.table("moved").get(name, Series()).tail(2 * self.looks)
        if len(moved) >= self.looks and not any(moved.values) and len(gradient.finite()) == len(gradient):
            return "its optimizer does not move it"
        return None

    def _explained(self, seen: History, networks: set[str]) -> bool:
        """Whether gradients of 0 are the doing of units that are dead or saturated, or have vanished on their way."""
        for network in networks:
            gradients = [
                seen.table("gradient")[n].finite().median()
                for n in seen.facts.of(network, "weight")
                if n in seen.table("gradient")
            ]
            present = [value for value in gradients if value > 0]
            if not present or not (blocked_units(seen) or min(present) < self.faint * max(present)):
                return False
        return True


class LabelsSwapped(Rule[History]):
    """The discriminator learns to tell the two apart the wrong way round: both sides of the game are content."""

    code = "labels-swapped"
    floor = Level.WIRING
    follows = frozenset({"learning-rate-high"})
    steps = 30
    content = 0.45
    """Share of its first level below which a loss says that its side is winning; LSGAN is at half of it in balance."""
    both = 0.2
    """The same for both sides at once."""
    looks = 6

    def look(self, seen: History) -> Finding | None:
        judge, real, fake = seen["train/discriminator"], seen["train/score_real"], seen["train/score_fake"]
        if not seen.facts.adversarial or len(real) < 2 * self.looks or seen.step < self.steps:
            return None
        gaps = [r - f for r, f in zip(real.values, fake.values, strict=False)][-2 * self.looks :]
        reversed_share = sum(gap < 0 for gap in gaps) / len(gaps)
        start, now = seen.start("train/discriminator", 3), judge.tail(2 * self.looks).finite().median()
        won = start > 0 and now < self.content * start
        # A critic without bounds (Wasserstein) wins by a loss below 0.
        won = won or (start <= 0 and now < 0)
        if not (reversed_share >= 0.9 and won) and not self._both_content(seen):
            return None
        gap = sorted(gaps)[len(gaps) // 2]
        return self.fault(
            seen.step,
            "discriminator",
            gap,
            "score_real above score_fake",
            "The discriminator scores true images below made ones, and is content with it: its labels are swapped. "
            "Pass (real, fake) in that order to model.init_args.adversarial's discriminator loss; label real images "
            "1 and made ones 0.",
        )

    def _both_content(self, seen: History) -> bool:
        """Whether both losses are near 0, which no game allows whose sides want the opposite."""
        for name in ("train/discriminator", "train/adversarial"):
            latest = seen[name].tail(2 * self.looks)
            if len(latest) < 2 * self.looks or not 0 <= max(latest.values) < self.both * seen.start(name, 3):
                return False
        return True


class DiscriminatorLeaks(Rule[History]):
    """The discriminator's backward pass reaches the generator."""

    code = "discriminator-leaks"
    floor = Level.WIRING
    looks = 2

    def look(self, seen: History) -> Finding | None:
        for network, leaked in seen.table("leaked").items():
            latest = leaked.finite().tail(8)
            found = [value for value in latest.values if value > 0]
            if len(found) >= self.looks and len(found) > len(latest) / 2:
                return self.fault(
                    seen.step,
                    network,
                    max(found),
                    0.0,
                    f"The discriminator's loss sends gradients into {network}, which then learns to help it: give the "
                    "discriminator fake.detach(), and clear the generator's gradients before its own backward pass.",
                )
        return None
