"""A generator and a discriminator that no longer learn from each other.

The losses of a healthy GAN go up and down, and a discriminator that mostly wins is common: so a one-sided game is a
fault only when the images suffer, and else a note.
"""

from __future__ import annotations

import math

from workbench.findings.engine import Level
from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import TrainingRule, progress_of


class DiscriminatorTooStrong(TrainingRule):
    """The discriminator is never wrong, so the generator learns nothing from it."""

    code = "discriminator-too-strong"
    limit = 0.1  # share of its first level below which the discriminator's loss is near 0
    lost = 0.7  # share of its first level that the generator's loss still has at least: it gains nothing
    count = 12
    staying = 8  # of so many values, how many are near 0: single batches may surprise it
    steps = 100

    def find(self, history: History) -> Finding | None:
        model, losses = history.model, history["train/discriminator"].tail(self.count)
        start, before = history.start("train/discriminator", 3), history.start("train/adversarial", 3)
        if not model.adversarial or len(losses) < self.count or not start > 0:
            return None
        share = sorted(losses.values)[self.staying - 1] / start
        now = history["train/adversarial"].recent(self.count)
        # A critic without bounds may go below 0.
        if not share <= self.limit or min(losses.values) < 0 or not now > self.lost * before:
            return None
        progress, network = progress_of(history), model.discriminator
        advice = (
            f"Its loss stays near 0 while the generator's went from {before:.2g} to {now:.2g}. Slow it down: "
            f"{model.lower_rate(network, 4)}, smooth its labels{model.key('real_label: 0.9 of the adversarial loss')}, "
            f"or give the generator more steps{model.key('--model.init_args.generator_steps 2')}."
        )
        return self.report(history, network, share, advice, progress.poor or progress.adversarial_only)


class DiscriminatorInert(TrainingRule):
    """The discriminator has never told the two apart."""

    code = "discriminator-inert"
    limit = 0.05  # difference of the mean scores, in logits, that counts as telling apart
    still = 0.5  # the same where its weights do not move: initial weights may tell apart a little by chance
    faint = 1e-4  # steps of such a share of its weights do not move them
    count = 12
    measured = 100  # steps between the first and the last score

    def find(self, history: History) -> Finding | None:
        real, fake, model = history["train/score_real"], history["train/score_fake"], history.model
        if not model.adversarial or len(real) < self.count or real.last_step - real.steps[0] < self.measured:
            return None
        gaps = [abs(r - f) for r, f in zip(real.values, fake.values, strict=False) if math.isfinite(r - f)]
        if not gaps or max(gaps) > (self.still if self._stays(history) else self.limit):
            return None
        start = history.start("train/discriminator", 3)
        if start > 0 and history["train/discriminator"].recent(self.count) < 0.95 * start:
            return None
        network = model.discriminator
        advice = (
            "Its scores for real and generated images have been the same from the start. See that its optimizer steps "
            f"and that it sees both; then try a larger rate, {model.lower_rate(network, 0.25)}."
        )
        return self.report(history, network, max(gaps), advice)

    def _stays(self, history: History) -> bool:
        """Whether its weights stay where they are, even though its optimizer steps."""
        ratios = [history[f"update/{name}"].finite().tail(self.count) for name in history.model.discriminators]
        return any(len(ratio) >= self.count and ratio.median() < self.faint for ratio in ratios)


class DiscriminatorOverfits(TrainingRule):
    """The discriminator has memorized the training images (the r_t of StyleGAN2-ADA, Karras et al. 2020)."""

    code = "discriminator-overfits"
    limit = 0.6
    gap = 0.6
    count = 4
    steps = 100

    def find(self, history: History) -> Finding | None:
        known, unseen = (history[f"game/sign_{split}"].tail(self.count) for split in ("train", "val"))
        if len(known) < self.count or len(unseen) < self.count:
            return None
        if min(known.values) <= self.limit or max(unseen.values) > min(known.values) - self.gap:
            return None
        model, network = history.model, history.model.discriminator
        advice = (
            f"It calls {(1 + known.median()) / 2:.0%} of the training images' patches real, but only "
            f"{(1 + unseen.median()) / 2:.0%} of unseen ones'. Use more images or augmentation"
            f"{model.key('--data.augment.rotate_degrees 15')}, or a smaller rate: {model.lower_rate(network, 4)}."
        )
        # With few images most discriminators end here; it does harm where the generator gets nowhere.
        return self.report(history, network, known.median(), advice, unseen.median() < 0 or progress_of(history).poor)


class ModeCollapse(TrainingRule):
    """Whatever the input, the output is the same."""

    code = "mode-collapse"
    limit = 0.1
    colored = 0.2  # of a colorizer: strength of its colors against the targets' below which it has not begun to color
    count = 2
    steps = 100

    def find(self, history: History) -> Finding | None:
        diversity, model = history["game/diversity"].tail(self.count), history.model
        if not model.adversarial or len(diversity) < self.count or max(diversity.values) >= self.limit:
            return None
        if model.color:
            strength = history["game/color_strength"].tail(self.count)
            harmless = not len(strength) or min(strength.values) < self.colored
        else:
            harmless = bool(progress_of(history).beats_trivial)
        weight = model.losses.get("reconstruction")
        more = f" or a larger weight of the reconstruction, {weight.set((weight.value or 1) * 3)}," if weight else ""
        advice = (
            f"Its outputs for different images differ by {diversity.median():.0%} of what the targets differ by. Try a "
            f"smaller rate for the discriminator, {model.lower_rate(model.discriminator, 4)},{more} and see that the "
            "generator gets its input."
        )
        return self.report(history, model.main_network(), diversity.median(), advice, not harmless)


class AdversarialImbalance(TrainingRule):
    """One of the generator's losses dominates the other."""

    code = "adversarial-imbalance"
    level = Level.RATE
    implied_by = frozenset({"learning-rate-high"})
    limit = 100.0
    count = 2
    steps = 10

    def find(self, history: History) -> Finding | None:
        adversarial = history["train/adversarial"]  # a generator that trains alone at first is not judged yet
        losses = {name: history.model.losses.get(name) for name in ("adversarial", "reconstruction")}
        switched_off = any(weight is not None and weight.value == 0 for weight in losses.values())
        if not len(adversarial) or switched_off:
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
        return self.report(history, history.model.main_network(), ratio, advice, limit=limit)
