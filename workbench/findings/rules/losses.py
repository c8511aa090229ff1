"""The course of the training loss: up, flat, or to and fro."""

from __future__ import annotations

import itertools
import math

from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import Progress, error_ratios, progress_of, rise
from workbench.findings.rule import Level, Rule
from workbench.findings.series import Series, error_of_median, spread


class LossSurge(Rule[History]):
    """The loss leaves a level that it had reached, and does not come back."""

    code = "loss-surge"
    floor = Level.SYMPTOM
    follows = frozenset({"loss-oscillates"})
    limit = 2.0
    lost = 0.5
    """Share of what had been gained that has to be lost again."""
    looks = 3
    length = 15
    """Steps of which one look takes the median."""

    def look(self, seen: History) -> Finding | None:
        progress = progress_of(seen)
        if seen.facts.adversarial and progress.loss == "loss":
            return None
        loss = seen[progress.loss].finite()
        length = self.length if progress.loss == "loss" else 5
        if len(loss) < length * 2 * self.looks:
            return None
        levels = _levels(loss, length)
        lowest = min(levels[: -self.looks])
        latest = min(levels[-self.looks :])
        gained = progress.start - lowest
        surged = latest > self.limit * lowest if lowest > 0 else latest - lowest > abs(lowest)
        # Where next to nothing had been gained, a rise is measured against the level itself.
        surged = surged and latest - lowest > self.lost * max(gained, 0)
        if not surged or latest - lowest < 4 * spread(loss.tail(self.looks * length)) / math.sqrt(length):
            return None
        network = next(iter(seen.facts.networks()), "network")
        return self.fault(
            seen.step,
            progress.loss,
            latest / lowest if lowest > 0 else latest - lowest,
            self.limit,
            f"It had come down to {lowest:.3g} and is at {latest:.3g}. Go back to checkpoints/best.ckpt with a smaller "
            f"rate, {seen.facts.lower_rate(network, 3)}, and clip: {seen.facts.clipping.set(0.1)}.",
        )


class LossFlat(Rule[History]):
    """After a fair number of steps the network is no better than an answer that needs no network."""

    code = "loss-flat"
    floor = Level.SYMPTOM
    steps = 150
    mean = 0.8
    """Share of the mean answer's error above which nothing but the mean has been learned."""
    nothing = 0.02
    """How near, as a share, the error is to that of doing nothing, when that is all that was learned."""
    once = 0.9
    """Error of any look, against the better trivial answer, below which the network had learned something."""
    long = 1000
    """Steps after which any error above that of doing nothing counts."""

    def look(self, seen: History) -> Finding | None:
        progress = progress_of(seen)
        rates = [seen[f"lr/{name}"] for name in seen.facts.networks()]
        warming = any(len(r) > 10 and r.last == max(r.values) and r.last > r.values[-10] for r in rates)
        if seen.step < self.steps or warming or not progress.poor or seen.facts.adversarial:
            return self._of_game(seen, progress)
        error, nothing, mean = (seen[f"probe/{name}"].last for name in ("error", "nothing", "mean"))
        if progress.beats_trivial is None:
            return self._unknown(seen, progress)
        if min(error_ratios(seen).values, default=1.0) < self.once:
            return None  # it had been better: whatever happened since, it was not flat
        stuck = error > self.mean * mean or abs(error / nothing - 1) < self.nothing or seen.step >= self.long
        say = self.fault if stuck else self.note
        return self._name(
            say, seen, error / min(nothing, mean), 1.0, "It does no better than an answer without a network"
        )

    def _of_game(self, seen: History, progress: Progress) -> Finding | None:
        if not seen.facts.adversarial or progress.loss == "loss" or seen.step < 2 * self.steps:
            return None
        if progress.beats_trivial or progress.falling or progress.fallen > self.nothing:
            return None
        return self._name(self.note, seen, 1 - progress.fallen, 0.98, "The reconstruction has not become better")

    def _unknown(self, seen: History, progress: Progress) -> Finding | None:
        if progress.fallen > self.nothing:
            return None
        say = self.note if seen.facts.pretrained else self.fault
        return self._name(say, seen, 1 - progress.fallen, 0.98, "The loss is where it began")

    def _name(self, say, seen: History, value: float, limit: float, what: str) -> Finding:
        network = next(iter(seen.facts.networks()), "network")
        return say(
            seen.step,
            "training",
            value,
            limit,
            f"{what} after {seen.step} steps. See that input and target belong together (look at samples/latest.png), "
            f"try another rate ({seen.facts.lower_rate(network, 0.3)} or {seen.facts.lower_rate(network, 3)}), and a "
            f"larger network: {seen.facts.option(network, 'width', 64)}.",
        )


class LossOscillates(Rule[History]):
    """The smoothed loss swings to and fro, far beyond the noise of single batches."""

    code = "loss-oscillates"
    floor = Level.SYMPTOM
    limit = 0.5
    """Share of the looks at which the smoothed loss turns round."""
    swing = 0.5
    """Size of a swing, as a share of the loss's level."""
    sure = 5.0
    """The same, in standard errors of a look."""
    looks = 12
    lengths = (4, 10, 25)
    """Steps of which one look takes the median: a swing shows only where its period is longer."""

    def look(self, seen: History) -> Finding | None:
        progress = progress_of(seen)
        if seen.facts.adversarial:
            return None
        loss = seen["loss"].finite()
        for length in self.lengths:
            parts = _parts(loss.tail(length * self.looks), length)
            if len(parts) < self.looks:
                return None
            levels = [part.median() for part in parts]
            moves = [after - before for before, after in itertools.pairwise(levels)]
            noise = max(Series([0] * len(parts), [error_of_median(part) for part in parts]).median(), 1e-12)
            middle = Series([0] * len(levels), levels).median()
            turns = sum(a * b < 0 and min(abs(a), abs(b)) > self.sure * noise for a, b in itertools.pairwise(moves))
            share = turns / (len(moves) - 1)
            size = Series([0] * len(moves), [abs(move) for move in moves]).median() / max(abs(middle), 1e-12)
            if share > self.limit and size > self.swing:
                network = next(iter(seen.facts.networks()), "network")
                say = self.fault if progress.poor else self.note
                return say(
                    seen.step,
                    "loss",
                    share,
                    self.limit,
                    f"It swings by {size:.0%} of its level at every other look. Lower the rate, "
                    f"{seen.facts.lower_rate(network, 3)}, take larger batches, {seen.facts.larger_batches()}, and see "
                    "that batches are shuffled.",
                )
        return None


class Overfitting(Rule[History]):
    """The validation loss rises while the training loss falls."""

    code = "overfitting"
    floor = Level.SYMPTOM
    limit = 1.2
    looks = 3
    """Validations in a row above the limit."""

    def look(self, seen: History) -> Finding | None:
        held = seen["val/loss"].finite()
        if len(held) < self.looks + 1:
            return None
        lowest = min(held.values[: -self.looks])
        at = held.steps[held.values.index(lowest)]
        latest = min(held.tail(self.looks).values)
        scale = max(abs(lowest), 1e-12)
        if (latest - lowest) / scale <= self.limit - 1:
            return None
        train = seen[progress_of(seen).loss].finite()
        before, after = train.until(max(at, 10) + 1).tail(50), train.tail(50)
        if len(before) < 3 or len(after) < 3 or not rise(before.median(), after.median()) < -0.02:
            return None
        say = self.note if seen.facts.adversarial else self.fault
        return say(
            seen.step,
            "val/loss",
            1 + (latest - lowest) / scale,
            self.limit,
            f"The validation loss was lowest at step {at} and is {(latest - lowest) / scale:.0%} above that, while the "
            "training loss falls. checkpoints/best.ckpt holds the best; use more images, more augmentation "
            "(--data.augment.rotate_degrees 15), --model.init_args.l2 1e-5 or a smaller network, or stop earlier: "
            "--early_stopping.patience 5.",
        )


class MetricDisagrees(Rule[History]):
    """The validation loss falls, and a metric on the same images gets worse."""

    code = "metric-disagrees"
    floor = Level.SYMPTOM
    limit = 0.1
    """Fall of the loss, as a share of its level."""
    worse = 0.03
    """Worsening of the metric, as a share of its level."""
    looks = 3

    def look(self, seen: History) -> Finding | None:
        losses = dict(seen["val/loss"].finite())
        for name, higher in seen.facts.higher_is_better.items():
            metric = seen[f"val/{name}"].finite()
            if len(metric) < self.looks or metric.last_step not in losses:
                continue
            sign = 1 if higher else -1
            # What both were when the metric was best, against the better of the last two validations.
            best, at = max((sign * value, step) for step, value in list(metric)[:-2])
            now = max(sign * value for value in metric.tail(2).values)
            change = (now - best) / max(abs(best), 1e-12)
            latest = max(losses.get(step, math.inf) for step in metric.tail(2).steps)
            fall = -rise(losses.get(at, latest), latest)
            if change < -self.worse and fall > self.limit:
                say = self.note if seen.facts.adversarial else self.fault
                return say(
                    seen.step,
                    f"val/{name}",
                    change,
                    -self.worse,
                    f"val/loss fell by {fall:.0%} while val/{name} got worse by {-change:.0%}: one of them does not "
                    f"measure what it is meant to. Check the metric's direction and range, and take a loss that is "
                    "nearer to it: --model.init_args.loss torch.nn.L1Loss.",
                )
        return None


def _parts(series: Series, length: int) -> list[Series]:
    count = len(series) // length
    whole = series.tail(count * length)
    return [
        Series(whole.steps[i * length : (i + 1) * length], whole.values[i * length : (i + 1) * length])
        for i in range(count)
    ]


def _levels(series: Series, length: int) -> list[float]:
    return [part.median() for part in _parts(series, length)]
