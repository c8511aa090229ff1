"""A learning rate that is far off, which looks like many other things."""

from __future__ import annotations

import itertools
import math

from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import Progress, level, progress_of, rise
from workbench.findings.rule import Level, Rule
from workbench.findings.rules.weights import swells
from workbench.findings.series import Series, error_of_median


def update_ratio(seen: History, network: str) -> Series:
    """The median over a network's weights of |step| / |weight|, at each measured step."""
    return seen[f"update/{network}"].finite()


class LearningRateHigh(Rule[History]):
    """Each step throws the weights about, or the loss climbs."""

    code = "learning-rate-high"
    floor = Level.RATE
    limit = 0.1
    wild = 2.0
    """A step larger than the weights themselves, even a single one: nothing of what they were is left."""
    looks = 10
    settled = 10
    steps = 20
    climb = 2.0
    """Rise of the loss, as a share of where it began, that counts as climbing."""
    burst = 10.0
    """The same of the last figures before the loss became no number."""
    jump = 5.0
    """Factor on the rate from one step to a later one that explains a loss which goes off right after it."""

    def look(self, seen: History) -> Finding | None:
        progress = progress_of(seen)
        for network in seen.facts.networks():
            ratio = update_ratio(seen, network).tail(self.looks)
            if network in seen.facts.discriminators:
                finding = self._of_discriminator(seen, progress, network)
            else:
                finding = self._of(seen, progress, network, ratio)
            if finding is not None:
                return finding
        return None

    def _of_discriminator(self, seen: History, progress: Progress, network: str) -> Finding | None:
        """How a game goes says little about a rate; only steps as large as the weights are no matter of taste."""
        wildest = self._wildest(seen, network)
        if wildest < self.wild:
            return None
        # It may find its way back, as a network that starts anew with whatever weights the wild steps have left.
        highest = max(seen["train/discriminator"].finite().values, default=math.nan)
        off = rise(seen.start("train/discriminator", 3), highest) > self.climb
        if off or progress.poor:
            return self._name(seen, network, wildest, self.limit)
        return None

    def _of(self, seen: History, progress: Progress, network: str, ratio: Series) -> Finding | None:
        if progress.far_off:
            return None
        harmed = progress.blown_up or (progress.now > progress.start and not progress.falling)
        steady = ratio.median()
        wildest = self._wildest(seen, network)
        if wildest > self.wild and (harmed or progress.poor):
            return self._name(seen, network, wildest, self.limit)
        settled = ratio.since(self.settled)  # Adam's first steps are as large as its rate, whatever the gradients
        if len(settled) >= 5 and settled.median() > self.limit and (harmed or progress.poor):
            return self._name(seen, network, settled.median(), self.limit)
        jump = self._jumped(seen, network)
        if jump is not None and progress.blown_up:
            return self._name(seen, network, jump, self.jump)
        if self._climbs(seen, progress) and not self._faint(steady) and not swells(seen, network):
            return self._name(seen, network, self._peak(seen, progress) / max(abs(progress.start), 1e-12), self.climb)
        if len(settled) >= self.looks and steady > self.limit:
            return self.note(
                seen.step,
                network,
                steady,
                self.limit,
                f"Steps are large against the weights, and yet it learns; a smaller rate may end better: "
                f"{seen.facts.lower_rate(network, 3)}.",
            )
        return None

    def _name(self, seen: History, network: str, value: float, limit: float) -> Finding:
        return self.fault(
            seen.step,
            network,
            value,
            limit,
            f"The steps are too large for the weights (1e-3 of them is healthy): "
            f"{seen.facts.lower_rate(network)}. A warm-up helps too, and clipping: {seen.facts.clipping.set(0.1)}.",
        )

    def _climbs(self, seen: History, progress: Progress) -> bool:
        """Whether the loss rises from part to part of the run, or went off before it became no number."""
        loss = seen[progress.loss].finite()
        if math.isnan(progress.start) or (seen.facts.adversarial and progress.loss == "loss"):
            return False
        if not progress.finite and len(loss):
            return rise(progress.start, self._peak(seen, progress)) > (self.burst if progress.start > 0 else 1)
        if seen["game/gradient_ratio"].last > 1:
            return False  # the adversary pulls harder than the reconstruction, and that is what it costs
        if len(loss) < self.steps:
            return False
        levels = [part.median() for part in loss.parts(4)]
        rising = all(after > before for before, after in itertools.pairwise(levels))
        return rising and rise(progress.start, level(loss)) > self.climb

    @staticmethod
    def _wildest(seen: History, network: str) -> float:
        """Of all steps so far: weights that were replaced once are large from then on, and steps small against them."""
        return max(update_ratio(seen, network).values, default=0.0)

    @staticmethod
    def _peak(seen: History, progress: Progress) -> float:
        return max(seen[progress.loss].finite().tail(10).values, default=math.nan)

    def _faint(self, ratio: float) -> bool:
        return ratio < 1e-4

    def _jumped(self, seen: History, network: str) -> float | None:
        rates = seen[f"lr/{network}"]
        lately = rates.tail(100)
        if len(lately) < 20:
            return None
        # Warm-up climbs as well, but from far below what the run then uses.
        usual, now = lately.tail(100).median(), max(lately.values)
        return now / usual if usual > 0 and now > self.jump * usual else None


class LearningRateLow(Rule[History]):
    """The weights hardly move, and so does the loss."""

    code = "learning-rate-low"
    floor = Level.RATE
    limit = 1e-4
    looks = 5
    steps = 50
    """Enough where the ratio is below a third of the limit; else four times as many."""
    moved = 0.05
    """Share of its first level by which the loss has to have moved to be on its way."""

    def look(self, seen: History) -> Finding | None:
        progress = progress_of(seen)
        for network in seen.facts.networks():
            since = self._warm_since(seen, network)
            if since is None or network in seen.facts.discriminators:
                continue
            ratio = update_ratio(seen, network).tail(20).since(since)
            if len(ratio) < self.looks or ratio.median() >= self.limit:
                continue
            needed = self.steps if ratio.median() < self.limit / 3 else 4 * self.steps
            if seen.step - since < needed or self._moves(seen, progress) or progress.blown_up:
                continue
            if progress.beats_trivial or self._vanishes(seen, network):
                continue
            if progress.beats_trivial is None and (seen.facts.pretrained or ratio.median() > self.limit / 3):
                continue
            return self.fault(
                seen.step,
                network,
                ratio.median(),
                self.limit,
                f"The weights move by less than a ten-thousandth a step, and the loss stays where it was: "
                f"{seen.facts.lower_rate(network, min(max(ratio.median() / 1e-3, 1e-4), 0.1))}.",
            )
        return None

    def _moves(self, seen: History, progress: Progress) -> bool:
        """Whether the loss has moved by more than its own noise."""
        first, *_, last = seen[progress.loss].finite().parts(4)
        fall = first.median() - last.median()
        noise = 2 * math.hypot(error_of_median(first), error_of_median(last))
        return fall > max(self.moved * abs(first.median()), noise)

    @staticmethod
    def _warm_since(seen: History, network: str) -> int | None:
        """The step from which on the rate was at half its maximum or more; None while it still climbs."""
        rates = seen[f"lr/{network}"]
        if not len(rates) or max(rates.values) == 0:
            return None if len(rates) else 0
        top = max(rates.values)
        since = next(step for step, value in rates if value >= top / 2)
        climbing = len(rates) > 10 and rates.last > rates.values[-10] and rates.last == top
        return None if climbing else since

    @staticmethod
    def _vanishes(seen: History, network: str) -> bool:
        """Whether some layers do move: then it is not the rate that keeps the others still."""
        table = seen.table("update")
        ratios = [table[n].finite().tail(10).median() for n in seen.facts.of(network, "weight") if n in table]
        ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
        return bool(ratios) and max(ratios) > 1e-3
