"""Whether a run gets anywhere, which decides if a symptom does harm; and what all rules on a run have in common."""

from __future__ import annotations

import math
from functools import cached_property

from workbench.findings.history import History, Series

BETTER = 0.98  # share of the trivial outputs' error below which a network has learned something
FALL = 0.02  # share of its level by which a loss has to fall, from one third of the run to the next
IMPROVED = 0.03  # share by which the error on the probe has to fall to count as improving
LEARNED = 0.1  # share of its first level by which a loss has to have fallen where no trivial error is known
FAR_OFF = 30.0  # first error against the worse of the trivial outputs' from which on the start is to blame
TOO_EARLY = 30  # steps before which nothing is called poor


def progress_of(history: History) -> Progress:
    """How far a run has come by now; computed once for all rules."""
    if "progress" not in history.cache:
        history.cache["progress"] = Progress(history)
    return history.cache["progress"]


class Progress:
    """How far a run has come: its loss, and its error on the probe against that of doing nothing or of the mean."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.steps = history.step
        self.loss = main_loss(history)
        self.start = history.start(self.loss)
        self.now = level(history[self.loss])
        self.finite = math.isfinite(history["loss"].last) or not len(history["loss"])
        # Whether nothing but a discriminator says how well the task is done.
        self.adversarial_only = history.model.adversarial and self.loss == "loss"
        self.fallen = -rise(self.start, self.now)  # the share of its first level; below 0 when it has risen
        self.error = history["probe/error"]
        known = (history[name].last for name in ("probe/nothing", "probe/mean"))
        self.trivial_errors = [value for value in known if math.isfinite(value)]

    @property
    def beats_trivial(self) -> bool | None:
        """Whether the network beats doing nothing and the mean target; None: unknown."""
        known = len(self.error) and self.trivial_errors
        return self.error.last < BETTER * min(self.trivial_errors) if known else None

    @property
    def first_error(self) -> float:
        """The error before the first step over that of the worse of the trivial outputs; NaN: unknown."""
        if not len(self.error) or self.error.steps[0] > 1 or not self.trivial_errors:
            return math.nan
        first = self.error.values[0]
        return first / max(*self.trivial_errors, 1e-12) if math.isfinite(first) else math.inf

    @property
    def far_off(self) -> bool:
        """Whether the outputs were far off before the first step: then no rate is to blame for what the loss does."""
        return self.first_error > FAR_OFF

    @property
    def still_off(self) -> bool:
        """Whether they were far off before the first step, and have not come near since."""
        now = self.error.last / max([*self.trivial_errors, 1e-12])
        return self.far_off and not (self.finite and now < FAR_OFF / 3)

    @property
    def blown_up(self) -> bool:
        """Whether the loss is far above where it began, or not finite. An adversarial loss alone may drift anywhere."""
        return not self.finite or (not self.adversarial_only and -self.fallen > 1)

    @cached_property
    def falling(self) -> bool:
        """Whether the loss still falls by more than its own noise."""
        series = self.history[self.loss].finite()
        _, before, after = series.parts(3)
        if len(series) < 6 or len(before) < 2 or len(after) < 2:
            return False
        fall = before.median() - after.median()
        return fall > max(FALL * abs(before.median()), noise_between(before, after))

    @cached_property
    def improving(self) -> bool:
        """Whether the error on the probe, whose samples stay the same, is below that of the first two thirds."""
        ratios = error_ratios(self.history)
        before = ratios.until(round(self.steps * 2 / 3))
        return len(before) > 0 and ratios.last < (1 - IMPROVED) * min(before.values)

    @property
    def poor(self) -> bool:
        """Whether the run gets nowhere: no better than the trivial outputs, and not on its way there."""
        if self.blown_up:
            return True
        if self.steps < TOO_EARLY or self.falling or self.improving:
            return False
        beats = self.beats_trivial
        # A colorizer may well be further from the truth than gray, and still be right: there the loss decides.
        if beats is None or (self.history.model.adversarial and not beats):
            return not self.adversarial_only and self.fallen < LEARNED
        return not beats


def main_loss(history: History) -> str:
    """The loss that says how well the task is done: a GAN's reconstruction; that of the data beside penalties."""
    model = history.model
    if model.adversarial:
        weight = model.losses.get("reconstruction")
        alone = not len(history["train/reconstruction"]) or (weight is not None and weight.value == 0)
        return "loss" if alone else "train/reconstruction"
    return "train/loss" if model.penalties and len(history["train/loss"]) else "loss"


def error_ratios(history: History) -> Series:
    """The error on the probe over that of the better of the trivial outputs, at each measurement."""
    trivial = dict(history["probe/nothing"])
    for step, value in history["probe/mean"]:
        trivial[step] = min(value, trivial.get(step, value))
    found = [(step, value / trivial[step]) for step, value in history["probe/error"] if trivial.get(step, 0) > 0]
    return Series([step for step, _ in found], [value for _, value in found]).finite()


def is_warming_up(rates: Series) -> bool:
    """Whether a learning rate still climbs."""
    return len(rates) > 10 and rates.values[-10] < rates.last == max(rates.values)


def level(series: Series) -> float:
    """Where a noisy series is by now: the median of its last tenth, at least of 5 values, at most of 100."""
    return series.recent(min(max(len(series) // 10, 5), 100))


def noise_between(one: Series, other: Series) -> float:
    """By how much the medians of two series may differ by chance: two standard errors."""
    return 2 * math.hypot(one.error_of_median(), other.error_of_median())


def rise(before: float, after: float) -> float:
    """The share of its size by which a value has risen; 1 is twice as much."""
    return (after - before) / max(abs(before), 1e-12)
