"""A generator and a discriminator that no longer learn from each other.

The losses of a healthy GAN go up and down, and a discriminator that mostly wins is common: so a one-sided game is a
fault only when the images suffer, and else a note.
"""

from __future__ import annotations

import math

from workbench.findings.engine import Level, Rule
from workbench.findings.finding import Finding
from workbench.findings.history import History, ModelInfo
from workbench.findings.progress import progress_of


def discriminator_of(model: ModelInfo) -> str:
    """The name of the (first) discriminator."""
    return min(model.discriminators, default="discriminator")


class DiscriminatorTooStrong(Rule[History]):
    """The discriminator is never wrong, so the generator learns nothing from it."""

    code = "discriminator-too-strong"
    level = Level.SYMPTOM
    near_0 = 0.1  # share of its first level below which the discriminator's loss is near 0
    lost = 0.7  # share of its first level that the generator's loss still has at least: it gains nothing
    count = 12
    staying = 8  # of so many values, how many are near 0: single batches may surprise it
    steps = 100

    def evaluate(self, history: History) -> Finding | None:
        model, losses = history.model, history["train/discriminator"].tail(self.count)
        start, before = history.start("train/discriminator", 3), history.start("train/adversarial", 3)
        if not model.adversarial or history.step < self.steps or len(losses) < self.count or not start > 0:
            return None
        share = sorted(losses.values)[self.staying - 1] / start
        if not share <= self.near_0 or min(losses.values) < 0:  # a critic without bounds may go below 0
            return None
        now = history["train/adversarial"].tail(self.count).finite().median()
        if not now > self.lost * before:
            return None
        progress, network = progress_of(history), discriminator_of(model)
        report = self.fault if progress.poor or progress.adversarial_only else self.note
        slower = model.key(
            "--model.init_args.generator_steps 2, or real_label: 0.9 in the adversarial loss's init_args, or "
            f"--gradient_clipping.networks '{{{network}: 0.1}}'"
        )
        advice = (
            f"Its loss stays near 0 while the generator's went from {before:.2g} to {now:.2g}. Slow it down: "
            f"{model.lower_rate(network, 4)}, smoothed labels, or more of the generator's steps{slower}."
        )
        return report(history.step, network, share, self.near_0, advice)


class DiscriminatorInert(Rule[History]):
    """The discriminator has never told the two apart."""

    code = "discriminator-inert"
    level = Level.SYMPTOM
    apart = 0.05  # difference of the mean scores, in logits, that counts as telling apart
    still = 0.5  # the same where its weights do not move: initial weights may tell apart a little by chance
    faint = 1e-4  # steps of such a share of its weights do not move them
    count = 12
    steps = 100

    def evaluate(self, history: History) -> Finding | None:
        real, fake, model = history["train/score_real"], history["train/score_fake"], history.model
        if not model.adversarial or len(real) < self.count or real.last_step - real.steps[0] < self.steps:
            return None
        gaps = [abs(r - f) for r, f in zip(real.values, fake.values, strict=False) if math.isfinite(r - f)]
        if not gaps or max(gaps) > (self.still if self._stays(history) else self.apart):
            return None
        start = history.start("train/discriminator", 3)
        if start > 0 and history["train/discriminator"].tail(self.count).finite().median() < 0.95 * start:
            return None
        network = discriminator_of(model)
        advice = (
            "Its scores for real and generated images have been the same from the start. See that its optimizer steps "
            f"and that it sees both; then try a larger rate, {model.lower_rate(network, 0.25)}, or a larger "
            f"network{model.option(network, 'width', 64)}."
        )
        return self.fault(history.step, network, max(gaps), self.apart, advice)

    def _stays(self, history: History) -> bool:
        """Whether its weights stay where they are, even though its optimizer steps."""
        ratios = [history[f"update/{name}"].finite().tail(self.count) for name in history.model.discriminators]
        return any(len(ratio) >= self.count and ratio.median() < self.faint for ratio in ratios)


class DiscriminatorOverfits(Rule[History]):
    """The discriminator has memorized the training images (the r_t of StyleGAN2-ADA, Karras et al. 2020)."""

    code = "discriminator-overfits"
    level = Level.SYMPTOM
    limit = 0.6
    gap = 0.6
    count = 4
    steps = 100

    def evaluate(self, history: History) -> Finding | None:
        known, unseen = (history[f"game/sign_{split}"].tail(self.count) for split in ("train", "val"))
        if history.step < self.steps or len(known) < self.count or len(unseen) < self.count:
            return None
        if min(known.values) <= self.limit or max(unseen.values) > min(known.values) - self.gap:
            return None
        # With few images most discriminators end here; it does harm where the generator gets nowhere.
        report = self.fault if unseen.median() < 0 or progress_of(history).poor else self.note
        model, network = history.model, discriminator_of(history.model)
        advice = (
            f"It calls {(1 + known.median()) / 2:.0%} of the training images' patches real, but only "
            f"{(1 + unseen.median()) / 2:.0%} of unseen ones'. Use more images or augmentation"
            f"{model.key('--data.augment.rotate_degrees 15')}, a smaller discriminator"
            f"{model.option(network, 'width', 24)}, or a smaller rate for it: {model.lower_rate(network, 4)}."
        )
        return report(history.step, network, known.median(), self.limit, advice)


class ModeCollapse(Rule[History]):
    """Whatever the input, the output is the same."""

    code = "mode-collapse"
    level = Level.SYMPTOM
    limit = 0.1
    colored = 0.2  # of a colorizer: strength of its colors against the targets' below which it has not begun to color
    count = 2
    steps = 100

    def evaluate(self, history: History) -> Finding | None:
        diversity, model = history["game/diversity"].tail(self.count), history.model
        if not model.adversarial or history.step < self.steps or len(diversity) < self.count:
            return None
        if max(diversity.values) >= self.limit:
            return None
        if model.color:
            strength = history["game/color_strength"].tail(self.count)
            harmless = not len(strength) or min(strength.values) < self.colored
        else:
            harmless = bool(progress_of(history).beats_trivial)
        report = self.note if harmless else self.fault
        weight = model.losses.get("reconstruction")
        more = f" or a larger weight of the reconstruction, {weight.set((weight.value or 1) * 3)}," if weight else ""
        advice = (
            f"Its outputs for different images differ by {diversity.median():.0%} of what the targets differ by. Try a "
            f"smaller rate for the discriminator, {model.lower_rate(discriminator_of(model), 4)},{more} and see that "
            "the generator gets its input."
        )
        return report(history.step, model.main_network(), diversity.median(), self.limit, advice)


class AdversarialImbalance(Rule[History]):
    """One of the generator's losses dominates the other."""

    code = "adversarial-imbalance"
    level = Level.RATE
    implied_by = frozenset({"learning-rate-high"})
    limit = 100.0
    count = 2
    steps = 10

    def evaluate(self, history: History) -> Finding | None:
        adversarial = history["train/adversarial"]  # a generator that trains alone at first is not judged yet
        losses = {name: history.model.losses.get(name) for name in ("adversarial", "reconstruction")}
        switched_off = any(weight is not None and weight.value == 0 for weight in losses.values())
        if history.step < self.steps or not len(adversarial) or switched_off:
            return None
        ratios = history["game/gradient_ratio"].since(adversarial.steps[0]).tail(self.count).finite()
        if len(ratios) < self.count or not (min(ratios.values) > self.limit or max(ratios.values) < 1 / self.limit):
            return None
        ratio = ratios.median()
        strong, weak = ("adversarial", "reconstruction") if ratio > 1 else ("reconstruction", "adversarial")
        factor = max(ratio, 1 / max(ratio, 1e-12))
        weight = losses[strong]
        lower = weight.set((weight.value or 1.0) * 10 / factor) if weight else "a smaller weight of the stronger one"
        advice = (
            f"At the generator's output the {strong} loss dominates the {weak} loss: their gradients differ "
            f"{factor:.0f}-fold. Try {lower}."
        )
        limit = self.limit if ratio > 1 else 1 / self.limit
        return self.fault(history.step, history.model.main_network(), ratio, limit, advice)
