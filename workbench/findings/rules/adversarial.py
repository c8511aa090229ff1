"""The game of a generator and a discriminator, when it is no game any more.

The losses of a healthy game go up and down, and a discriminator that mostly wins is common: so a one-sided game is a
fault only when the images suffer, and else a note.
"""

from __future__ import annotations

from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import progress_of
from workbench.findings.rule import Level, Rule
from workbench.findings.series import Series

JUDGE = "discriminator"


class DiscriminatorTooStrong(Rule[History]):
    """The discriminator is never wrong, so the generator learns nothing from it."""

    code = "discriminator-too-strong"
    floor = Level.SYMPTOM
    near_0 = 0.1
    """Share of its first level below which the discriminator's loss is near 0."""
    lost = 0.7
    """Share of its first level that the generator's loss still has at least: it gains nothing."""
    looks = 12
    staying = 8
    """Of so many looks, how many are near 0: single batches may surprise it."""
    steps = 100

    def look(self, seen: History) -> Finding | None:
        judge, answer = seen["train/discriminator"].tail(self.looks), seen["train/adversarial"].tail(self.looks)
        start, before = seen.start("train/discriminator", 3), seen.start("train/adversarial", 3)
        if not seen.facts.adversarial or seen.step < self.steps or len(judge) < self.looks or not start > 0:
            return None
        share = sorted(judge.values)[self.staying - 1] / start
        if not share <= self.near_0 or min(judge.values) < 0:  # a critic without bounds may go below 0
            return None
        now = answer.finite().median()
        if not now > self.lost * before:
            return None
        progress = progress_of(seen)
        say = self.fault if progress.poor or progress.game_alone else self.note
        return say(
            seen.step,
            JUDGE,
            share,
            self.near_0,
            f"Its loss stays near 0 while the generator's went from {before:.2g} to {now:.2g}. Slow it down: "
            f"{seen.facts.lower_rate(JUDGE, 4)}, real_label: 0.9 in the adversarial loss's init_args, "
            "--model.init_args.generator_steps 2, or --gradient_clipping.networks '{discriminator: 0.1}'.",
        )


class DiscriminatorInert(Rule[History]):
    """The discriminator has never told the two apart."""

    code = "discriminator-inert"
    floor = Level.SYMPTOM
    apart = 0.05
    """Difference of the mean scores, in logits, that counts as telling apart."""
    still = 0.5
    """The same where its weights do not move: what it has drawn at the start may tell apart a little by chance."""
    faint = 1e-4
    """Steps of such a share of its weights do not move them."""
    looks = 12
    steps = 100

    def look(self, seen: History) -> Finding | None:
        real, fake = seen["train/score_real"], seen["train/score_fake"]
        judge = seen["train/discriminator"]
        if not seen.facts.adversarial or len(real) < self.looks or real.last_step - real.steps[0] < self.steps:
            return None
        gaps = Series(real.steps, [abs(r - f) for r, f in zip(real.values, fake.values, strict=False)]).finite()
        if not len(gaps) or max(gaps.values) > (self.still if self._rests(seen) else self.apart):
            return None
        start, now = seen.start("train/discriminator", 3), judge.tail(self.looks).finite().median()
        if start > 0 and now < 0.95 * start:
            return None
        return self.fault(
            seen.step,
            JUDGE,
            max(gaps.values),
            self.apart,
            "Its scores for true and made images have been the same from the start. See that its optimizer steps and "
            f"that it sees both; then a larger rate, {seen.facts.lower_rate(JUDGE, 0.25)}, or a larger network, "
            f"{seen.facts.option(JUDGE, 'width', 64)}.",
        )

    def _rests(self, seen: History) -> bool:
        """Whether its weights stay where they are, however its optimizer steps."""
        ratios = [seen[f"update/{name}"].finite().tail(self.looks) for name in seen.facts.discriminators]
        return any(len(ratio) >= self.looks and ratio.median() < self.faint for ratio in ratios)


class DiscriminatorOverfits(Rule[History]):
    """The discriminator knows the training images by heart (the r_t of StyleGAN2-ADA, Karras et al. 2020)."""

    code = "discriminator-overfits"
    floor = Level.SYMPTOM
    limit = 0.6
    gap = 0.6
    looks = 4
    steps = 100

    def look(self, seen: History) -> Finding | None:
        known, unknown = seen["game/sign_train"].tail(self.looks), seen["game/sign_val"].tail(self.looks)
        if seen.step < self.steps or len(known) < self.looks or len(unknown) < self.looks:
            return None
        if min(known.values) <= self.limit or max(unknown.values) > min(known.values) - self.gap:
            return None
        # With few images most discriminators end here; it does harm where the generator gets nowhere.
        say = self.fault if unknown.median() < 0 or progress_of(seen).poor else self.note
        return say(
            seen.step,
            JUDGE,
            known.median(),
            self.limit,
            f"It says real of {_share(known.median())} of the training images' places, but of only "
            f"{_share(unknown.median())} of unseen ones'. More images or augmentation "
            f"(--data.augment.rotate_degrees 15), a smaller discriminator, {seen.facts.option(JUDGE, 'width', 24)}, "
            f"or a smaller rate for it: {seen.facts.lower_rate(JUDGE, 4)}.",
        )


class ModeCollapse(Rule[History]):
    """Whatever the input, the answer is the same."""

    code = "mode-collapse"
    floor = Level.SYMPTOM
    limit = 0.1
    painted = 0.2
    """Of a colorizer: strength of its colors against the targets'; below it has not begun to paint."""
    looks = 2
    steps = 100

    def look(self, seen: History) -> Finding | None:
        diversity = seen["game/diversity"].tail(self.looks)
        if not seen.facts.adversarial or seen.step < self.steps or len(diversity) < self.looks:
            return None
        if max(diversity.values) >= self.limit:
            return None
        strength = seen["game/color_strength"].tail(self.looks)
        if seen.facts.color:
            harmless = not len(strength) or min(strength.values) < self.painted
        else:
            harmless = bool(progress_of(seen).beats_trivial)
        say = self.note if harmless else self.fault
        weight = seen.facts.losses.get("reconstruction")
        more = f" or a larger {weight.set((weight.value or 1) * 3)}" if weight else ""
        return say(
            seen.step,
            next((n for n in seen.facts.networks() if n not in seen.facts.discriminators), "generator"),
            diversity.median(),
            self.limit,
            f"Its answers to different images differ by {diversity.median():.0%} of what the targets differ by. Try "
            f"a smaller rate for the discriminator, {seen.facts.lower_rate(JUDGE, 4)},{more}; and see that the "
            "generator gets its input.",
        )


class AdversarialImbalance(Rule[History]):
    """One of the generator's losses drowns the other."""

    code = "adversarial-imbalance"
    floor = Level.RATE
    follows = frozenset({"learning-rate-high"})
    limit = 100.0
    looks = 2
    steps = 10

    def look(self, seen: History) -> Finding | None:
        played = seen["train/adversarial"]  # a generator that trains alone at first is not judged yet
        if seen.step < self.steps or not len(played) or self._alone(seen):
            return None
        ratio = seen["game/gradient_ratio"].since(played.steps[0]).tail(self.looks).finite()
        if len(ratio) < self.looks:
            return None
        drowned = min(ratio.values) > self.limit or max(ratio.values) < 1 / self.limit
        if not drowned:
            return None
        adversarial, other = seen.facts.losses.get("adversarial"), seen.facts.losses.get("reconstruction")
        value = ratio.median()
        if value > 1:
            knob, what = adversarial, "adversarial loss drowns the reconstruction"
            by = 10 / value
        else:
            knob, what = other, "reconstruction loss drowns the adversarial one"
            by = 10 * value
        advice = knob.set((knob.value or 1.0) * by) if knob else "the weight of the stronger one, lowered"
        return self.fault(
            seen.step,
            "generator",
            value,
            self.limit if value > 1 else 1 / self.limit,
            f"At the generator's output the {what}: their gradients differ {max(value, 1 / value):.0f}-fold. Try "
            f"{advice}.",
        )

    @staticmethod
    def _alone(seen: History) -> bool:
        """Whether one of the two is switched off on purpose."""
        weights = [knob.value for name, knob in seen.facts.losses.items() if name in ("adversarial", "reconstruction")]
        return 0 in weights


def _share(sign: float) -> str:
    return f"{(1 + sign) / 2:.0%}"
