"""Whether a run gets anywhere: what decides if a symptom does harm."""

from __future__ import annotations

import math
from functools import cached_property

from workbench.findings.history import History
from workbench.findings.series import Series, error_of_median

BETTER = 0.98
"""Share of the trivial answers' error below which a network has learned something."""
FALL = 0.02
"""Share of its level by which a loss has to fall, from one third of the run to the next, to count as falling."""
IMPROVED = 0.03
"""Share by which the error on the probe has to fall to count as improving."""
LEARNT = 0.1
"""Share of its first level by which a loss has to have fallen where nothing is known of trivial answers."""
FAR_OFF = 30.0
"""Error before the first step against the worse of the trivial answers, from which on the start is to blame."""
PATIENCE = 30
"""Steps before which nobody can tell."""


def progress_of(seen: History) -> Progress:
    """How far a run has come by now; worked out once for all rules that ask."""
    if "progress" not in seen.cache:
        seen.cache["progress"] = Progress(seen)
    return seen.cache["progress"]


class Progress:
    """How far the run has come, from its training loss and from the trivial answers' error on the probe.

    Args:
        seen: The measurements.
    """

    def __init__(self, seen: History) -> None:
        self.seen = seen
        self.loss = main_loss(seen)
        self.start = seen.start(self.loss)
        self.now = level(seen[self.loss])

    @property
    def steps(self) -> int:
        return self.seen.step

    @property
    def finite(self) -> bool:
        return math.isfinite(self.seen["loss"].last) or not len(self.seen["loss"])

    @property
    def beats_trivial(self) -> bool | None:
        """Whether the network beats doing nothing and the mean target; None: unknown."""
        error, trivial = self.seen["probe/error"], trivial_error(self.seen)
        if not len(error) or math.isnan(trivial):
            return None
        return bool(error.last < BETTER * trivial)

    @property
    def far_off(self) -> bool:
        """Whether the outputs were far off before the first step: then no rate is to blame for what the loss does."""
        return self.first_error > FAR_OFF or self.first_error == math.inf

    @property
    def still_off(self) -> bool:
        """Whether they were far off before the first step, and have not come near since."""
        now = self.seen["probe/error"].last / max(self.worst_trivial, 1e-12)
        return self.far_off and not (self.finite and now < FAR_OFF / 3)

    @property
    def first_error(self) -> float:
        """The outputs' error before the first step over that of the worse of two trivial answers; NaN: unknown."""
        error, worst = self.seen["probe/error"], self.worst_trivial
        if not len(error) or error.steps[0] > 1 or math.isnan(worst):
            return math.nan
        return error.values[0] / max(worst, 1e-12) if math.isfinite(error.values[0]) else math.inf

    @property
    def worst_trivial(self) -> float:
        """The probe's error of the worse of two answers that need no network; NaN: unknown."""
        known = [self.seen[name].last for name in ("probe/nothing", "probe/mean") if len(self.seen[name])]
        return max((value for value in known if math.isfinite(value)), default=math.nan)

    @property
    def blown_up(self) -> bool:
        """Whether the loss is far above where it began, or no number at all."""
        # What a game alone is worth may drift anywhere.
        return not self.finite or (not self.game_alone and rise(self.start, self.now) > 1)

    @property
    def game_alone(self) -> bool:
        """Whether nothing but an adversary tells how well the task is done."""
        return self.seen.facts.adversarial and self.loss == "loss"

    @cached_property
    def falling(self) -> bool:
        """Whether the loss still falls by more than its own noise."""
        series = self.seen[self.loss].finite()
        if len(series) < 6:
            return False
        _, before, after = series.parts(3)
        if len(before) < 2 or len(after) < 2:
            return False
        fall = before.median() - after.median()
        noise = 2 * math.hypot(error_of_median(before), error_of_median(after))
        return fall > max(FALL * abs(before.median()), noise)

    @cached_property
    def improving(self) -> bool:
        """Whether the error on the probe, whose images stay the same, is below that of the first two thirds."""
        ratios = error_ratios(self.seen)
        before = ratios.until(round(self.steps * 2 / 3))
        return len(before) > 0 and ratios.last < (1 - IMPROVED) * min(before.values)

    @property
    def fallen(self) -> float:
        """By which share of its first level the loss has fallen; below 0 when it has risen."""
        return -rise(self.start, self.now)

    @property
    def poor(self) -> bool:
        """Whether the run gets nowhere: no better than the trivial answers, and not on its way there."""
        if self.blown_up:
            return True
        if self.steps < PATIENCE or self.falling or self.improving:
            return False
        beats = self.beats_trivial
        # A colorizer may well be further from the truth than gray, and still be right: there the loss decides.
        if beats is None or (self.seen.facts.adversarial and not beats):
            return not self.game_alone and self.fallen < LEARNT
        return not beats


def main_loss(seen: History) -> str:
    """The loss that tells how well the task is done: of a GAN its reconstruction, beside penalties that of the data."""
    if seen.facts.adversarial:
        weight = seen.facts.losses.get("reconstruction")
        alone = not len(seen["train/reconstruction"]) or (weight is not None and weight.value == 0)
        return "loss" if alone else "train/reconstruction"
    return "train/loss" if seen.facts.penalties and len(seen["train/loss"]) else "loss"


def trivial_error(seen: History) -> float:
    """The probe's error of the better of two answers that need no network; NaN: unknown."""
    values = [seen[name].last for name in ("probe/nothing", "probe/mean") if len(seen[name])]
    return min((value for value in values if math.isfinite(value)), default=math.nan)


def error_ratios(seen: History) -> Series:
    """The probe's error over that of the better of two answers that need no network, at each look."""
    trivial = dict(seen["probe/nothing"])
    for step, value in seen["probe/mean"]:
        trivial[step] = min(value, trivial.get(step, value))
    found = [(step, value / trivial[step]) for step, value in seen["probe/error"] if trivial.get(step, 0) > 0]
    return Series([step for step, _ in found], [value for _, value in found]).finite()


def level(series: Series) -> float:
    """Where a noisy series is by now: the median of its last tenth, at least of 5 values, at most of 100."""
    return series.tail(min(max(len(series) // 10, 5), 100)).finite().median()


def rise(before: float, after: float) -> float:
    """By which share of its size a value has risen; 1 is twice as much."""
    return (after - before) / max(abs(before), 1e-12)
