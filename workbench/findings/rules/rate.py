"""A learning rate that is far off, which looks like many other things."""

from __future__ import annotations

import itertools
import math

from workbench.findings.engine import Level
from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import Progress, TrainingRule, level, progress_of, rise
from workbench.findings.rules.layers import outgrows_its_steps
from workbench.findings.series import Series


def update_ratio(history: History, network: str) -> Series:
    """The median over a network's weights of |step| / |weight|, at each measured step."""
    return history[f"update/{network}"].finite()


def _peak(history: History, progress: Progress) -> float:
    return max(history[progress.loss].finite().tail(10).values, default=math.nan)


class LearningRateHigh(TrainingRule):
    """Each step throws the weights about, or the loss climbs."""

    code = "learning-rate-high"
    level = Level.RATE
    limit = 0.1
    wild = 2.0  # A step larger than the weights themselves, even a single one: nothing of what they were is left
    count = 10
    settled = 10
    enough = 20  # values of the loss from which on it can climb
    climb = 2.0  # rise of the loss, as a share of where it began, that counts as climbing
    burst = 10.0  # the same of the last values before the loss was not finite
    jump = 5.0  # factor on the rate from one step to a later one that explains a loss which goes off right after it
    faint = 1e-4

    def find(self, history: History) -> Finding | None:
        progress, model = progress_of(history), history.model
        for network in model.networks():
            of = self._of_discriminator if network in model.discriminators else self._of_network
            finding = of(history, progress, network)
            if finding is not None:
                return finding
        return None

    def _of_discriminator(self, history: History, progress: Progress, network: str) -> Finding | None:
        """A GAN's losses say little about a rate; only steps as large as the weights are clearly too large."""
        wildest = self._wildest(history, network)
        if wildest < self.wild:
            return None
        # It may recover, as a network that starts anew with whatever weights the wild steps have left.
        highest = max(history["train/discriminator"].finite().values, default=math.nan)
        off = rise(history.start("train/discriminator", 3), highest) > self.climb
        return self._name(history, network, wildest, self.limit) if off or progress.poor else None

    def _of_network(self, history: History, progress: Progress, network: str) -> Finding | None:
        if progress.far_off:
            return None
        ratio = update_ratio(history, network).tail(self.count)
        harmed = progress.blown_up or (progress.now > progress.start and not progress.falling) or progress.poor
        wildest = self._wildest(history, network)
        highest = max(history[progress.loss].finite().values, default=math.nan)
        went_off = rise(progress.start, highest) > self.burst  # an easy task may be learned in spite of it
        if wildest > self.wild and (harmed or went_off):
            return self._name(history, network, wildest, self.limit)
        settled = ratio.since(self.settled)  # Adam's first steps are as large as its rate, whatever the gradients
        if len(settled) >= 5 and settled.median() > self.limit and harmed:
            return self._name(history, network, settled.median(), self.limit)
        jump = self._jump(history, network)
        if jump is not None and progress.blown_up:
            return self._name(history, network, jump, self.jump)
        faint = ratio.median() < self.faint
        if self._climbs(history, progress) and not faint and not outgrows_its_steps(history, network):
            return self._name(history, network, _peak(history, progress) / max(abs(progress.start), 1e-12), self.climb)
        if len(settled) >= self.count and ratio.median() > self.limit:
            lower = history.model.lower_rate(network, 3)
            advice = f"Steps are large against the weights, and yet it learns; a smaller rate may end better: {lower}."
            return self.report(history, network, ratio.median(), advice, harmed=False)
        return None

    def _name(self, history: History, network: str, value: float, limit: float) -> Finding:
        model = history.model
        advice = f"The steps are too large for the weights (1e-3 of them is healthy): {model.lower_rate(network)}. "
        advice += f"A warm-up helps too, and clipping: {model.clipping.set(0.1)}."
        return self.report(history, network, value, advice, limit=limit)

    def _climbs(self, history: History, progress: Progress) -> bool:
        """Whether the loss rises from part to part of the run, or went off before it was not finite."""
        loss = history[progress.loss].finite()
        if math.isnan(progress.start) or progress.adversarial_only:
            return False
        if not progress.finite and len(loss):
            return rise(progress.start, _peak(history, progress)) > (self.burst if progress.start > 0 else 1)
        if history["game/gradient_ratio"].last > 1:
            return False  # the adversary pulls harder than the reconstruction, and that is what it costs
        if len(loss) < self.enough:
            return False
        levels = [part.median() for part in loss.parts(4)]
        rising = all(after > before for before, after in itertools.pairwise(levels))
        return rising and rise(progress.start, level(loss)) > self.climb

    @staticmethod
    def _wildest(history: History, network: str) -> float:
        """Of all steps so far: weights that were replaced once are large from then on, and steps small against them."""
        return max(update_ratio(history, network).values, default=0.0)

    def _jump(self, history: History, network: str) -> float | None:
        rates = history[f"lr/{network}"].tail(100)
        if len(rates) < 20:
            return None
        # Warm-up climbs as well, but from far below what the run then uses.
        usual, highest = rates.median(), max(rates.values)
        return highest / usual if usual > 0 and highest > self.jump * usual else None


class LearningRateLow(TrainingRule):
    """The weights hardly move, and neither does the loss."""

    code = "learning-rate-low"
    level = Level.RATE
    limit = 1e-4
    count = 5
    patience = 50  # steps: enough where the ratio is below a third of the limit; else four times as many
    moved = 0.05  # share of its first level by which the loss has to have moved to be on its way

    def find(self, history: History) -> Finding | None:
        progress, model = progress_of(history), history.model
        for network in model.networks():
            since = self._warm_since(history, network)
            if since is None or network in model.discriminators:
                continue
            measured = update_ratio(history, network).tail(20).since(since)
            ratio = measured.median()
            if len(measured) < self.count or ratio >= self.limit:
                continue
            clearly = ratio < self.limit / 3
            needed = self.patience if clearly else 4 * self.patience
            if history.step - since < needed or self._moves(history, progress) or progress.blown_up:
                continue
            if progress.beats_trivial or self._some_layers_move(history, network):
                continue
            if progress.beats_trivial is None and (model.pretrained or ratio > self.limit / 3):
                continue
            higher = model.lower_rate(network, min(max(ratio / 1e-3, 1e-4), 0.1))
            advice = f"The weights move by less than 1e-4 a step, and the loss stays where it was: {higher}."
            return self.report(history, network, ratio, advice)
        return None

    def _moves(self, history: History, progress: Progress) -> bool:
        """Whether the loss has moved by more than its own noise."""
        first, *_, last = history[progress.loss].finite().parts(4)
        noise = 2 * math.hypot(first.error_of_median(), last.error_of_median())
        return first.median() - last.median() > max(self.moved * abs(first.median()), noise)

    @staticmethod
    def _warm_since(history: History, network: str) -> int | None:
        """The step from which on the rate was at half its maximum or more; None while it still climbs, or is 0."""
        rates = history[f"lr/{network}"]
        if not len(rates):
            return 0
        top = max(rates.values)
        climbing = len(rates) > 10 and rates.last > rates.values[-10] and rates.last == top
        return None if climbing or top == 0 else next((step for step, value in rates if value >= top / 2), None)

    @staticmethod
    def _some_layers_move(history: History, network: str) -> bool:
        """Then it is not the rate that keeps the others still."""
        ratios = [series.finite().tail(10).median() for series in history.rows("update", network).values()]
        return max((ratio for ratio in ratios if math.isfinite(ratio)), default=0.0) > 1e-3
