"""The course of the loss and of the metrics: up, flat, to and fro, or apart from each other."""

from __future__ import annotations

import itertools
import math
from statistics import median

from workbench.findings.finding import Finding
from workbench.findings.history import History
from workbench.findings.progress import Progress, TrainingRule, error_ratios, progress_of, rise


class LossSurge(TrainingRule):
    """The loss leaves a level that it had reached, and does not come back."""

    code = "loss-surge"
    implied_by = frozenset({"loss-oscillates"})
    limit = 2.0
    lost = 0.5  # share of what had been gained that has to be lost again
    count = 3
    length = 15  # steps whose median is one value of the smoothed loss

    def find(self, history: History) -> Finding | None:
        progress, model = progress_of(history), history.model
        if progress.adversarial_only:
            return None
        loss = history[progress.loss].finite()
        length = self.length if progress.loss == "loss" else 5
        if len(loss) < length * 2 * self.count:
            return None
        levels = [chunk.median() for chunk in loss.chunks(length)]
        lowest, latest = min(levels[: -self.count]), min(levels[-self.count :])
        surged = latest > self.limit * lowest if lowest > 0 else latest - lowest > abs(lowest)
        # Where next to nothing had been gained, a rise is measured against the level itself.
        surged = surged and latest - lowest > self.lost * max(progress.start - lowest, 0)
        if not surged or latest - lowest < 4 * loss.tail(self.count * length).spread() / math.sqrt(length):
            return None
        value = latest / lowest if lowest > 0 else latest - lowest
        advice = (
            f"It had come down to {lowest:.3g} and is at {latest:.3g}. Return to an earlier checkpoint"
            f"{model.key('checkpoints/best.ckpt')} with a smaller rate, {model.lower_rate(model.main_network(), 3)}, "
            f"and clip: {model.clipping.set(0.1)}."
        )
        return self.report(history, progress.loss, value, advice)


class LossFlat(TrainingRule):
    """After a fair number of steps the network is no better than an output that needs no network."""

    code = "loss-flat"
    steps = 150
    mean = 0.8  # share of the mean target's error above which nothing but the mean has been learned
    nothing = 0.02  # how near, as a share, the error is to that of doing nothing, when that is all that was learned
    once = 0.9  # error at any time, against the better trivial output, below which the network had learned something
    long = 1000  # steps after which any error above that of doing nothing counts

    def find(self, history: History) -> Finding | None:
        progress, model = progress_of(history), history.model
        if model.adversarial:
            return self._of_gan(history, progress)
        rates = [history[f"lr/{name}"] for name in model.networks()]
        warming = any(len(r) > 10 and r.last == max(r.values) and r.last > r.values[-10] for r in rates)
        if warming or not progress.poor:
            return None
        if progress.beats_trivial is None:
            if progress.fallen > self.nothing:
                return None
            what = "The loss is where it began"
            return self._flat(history, 1 - progress.fallen, 0.98, not model.pretrained, what)
        if min(error_ratios(history).values, default=1.0) < self.once:
            return None  # it had been better: whatever happened since, it was not flat
        error, nothing, mean = (history[f"probe/{name}"].last for name in ("error", "nothing", "mean"))
        copies = abs(rise(nothing, error)) < self.nothing
        harmed = error > self.mean * mean or copies or history.step >= self.long
        value = error / max(min(progress.trivial_errors()), 1e-12)
        return self._flat(history, value, 1.0, harmed, "It does no better than an output without a network")

    def _of_gan(self, history: History, progress: Progress) -> Finding | None:
        if progress.adversarial_only or history.step < 2 * self.steps:
            return None
        if progress.beats_trivial or progress.falling or progress.fallen > self.nothing:
            return None
        return self._flat(history, 1 - progress.fallen, 0.98, False, "The reconstruction has not improved")

    def _flat(self, history: History, value: float, limit: float, harmed: bool, what: str) -> Finding:
        model = history.model
        network = model.main_network()
        advice = (
            f"{what} after {history.step} steps. See that input and target belong together"
            f"{model.key('look at samples/latest.png')}, try another rate ({model.lower_rate(network, 0.3)} or "
            f"{model.lower_rate(network, 3)}), and a larger network."
        )
        return self.report(history, "training", value, advice, harmed, limit)


class LossOscillates(TrainingRule):
    """The smoothed loss swings to and fro, far beyond the noise of single batches."""

    code = "loss-oscillates"
    limit = 0.5  # share of its values at which the smoothed loss turns round
    swing = 0.5  # size of a swing, as a share of the loss's level
    significance = 5.0  # the same, in standard errors of a value
    count = 12
    lengths = (4, 10, 25)  # steps whose median is one value: a swing shows only where its period is longer

    def find(self, history: History) -> Finding | None:
        progress, model = progress_of(history), history.model
        if model.adversarial:
            return None
        loss = history["loss"].finite()
        for length in self.lengths:
            chunks = loss.tail(length * self.count).chunks(length)
            if len(chunks) < self.count:
                return None
            levels = [chunk.median() for chunk in chunks]
            moves = [after - before for before, after in itertools.pairwise(levels)]
            noise = max(median(chunk.error_of_median() for chunk in chunks), 1e-12)
            sure = self.significance * noise
            turns = sum(a * b < 0 and min(abs(a), abs(b)) > sure for a, b in itertools.pairwise(moves))
            share = turns / (len(moves) - 1)
            size = median(abs(move) for move in moves) / max(abs(median(levels)), 1e-12)
            if share > self.limit and size > self.swing:
                advice = (
                    f"It swings by {size:.0%} of its level every other time. Lower the rate, "
                    f"{model.lower_rate(model.main_network(), 3)}, take larger batches, {model.larger_batches()}, "
                    "and see that they are shuffled."
                )
                return self.report(history, "loss", share, advice, progress.poor)
        return None


class Overfitting(TrainingRule):
    """The validation loss rises while the training loss falls."""

    code = "overfitting"
    limit = 1.2
    count = 3  # validations in a row above the limit

    def find(self, history: History) -> Finding | None:
        held_out, model = history["val/loss"].finite(), history.model
        if len(held_out) < self.count + 1:
            return None
        lowest = min(held_out.values[: -self.count])
        at = held_out.steps[held_out.values.index(lowest)]
        above = rise(lowest, min(held_out.tail(self.count).values))
        if above <= self.limit - 1:
            return None
        train = history[progress_of(history).loss].finite()
        before, after = train.until(max(at, 10) + 1).tail(50), train.tail(50)
        if len(before) < 3 or len(after) < 3 or not rise(before.median(), after.median()) < -0.02:
            return None
        advice = (
            f"The validation loss was lowest at step {at} and is {above:.0%} above that, while the training loss "
            f"falls. Use the best checkpoint{model.key('checkpoints/best.ckpt')}, more data or augmentation"
            f"{model.key('--data.augment.rotate_degrees 15')}, weight decay{model.key('--model.init_args.l2 1e-5')} or "
            f"a smaller network, or stop earlier{model.key('--early_stopping.patience 5')}."
        )
        return self.report(history, "val/loss", 1 + above, advice, not model.adversarial)


class MetricDisagrees(TrainingRule):
    """The validation loss falls, and a metric on the same samples gets worse."""

    code = "metric-disagrees"
    limit = 0.1  # fall of the loss, as a share of its level
    worse = 0.03  # worsening of the metric, as a share of its level
    count = 3

    def find(self, history: History) -> Finding | None:
        losses, model = dict(history["val/loss"].finite()), history.model
        for name, higher in model.higher_is_better.items():
            metric = history[f"val/{name}"].finite()
            if len(metric) < self.count or metric.last_step not in losses:
                continue
            sign = 1 if higher else -1
            # What both were when the metric was best, against the better of the last two validations.
            best, at = max((sign * value, step) for step, value in list(metric)[:-2])
            change = rise(best, max(sign * value for value in metric.tail(2).values))
            latest = max(losses.get(step, math.inf) for step in metric.tail(2).steps)
            fall = -rise(losses.get(at, latest), latest)
            if change < -self.worse and fall > self.limit:
                advice = (
                    f"val/loss fell by {fall:.0%} while val/{name} got worse by {-change:.0%}: one of them does not "
                    "measure what it is meant to. Check the metric's direction and range, and take a loss that is "
                    f"nearer to it{model.key('--model.init_args.loss torch.nn.L1Loss')}."
                )
                return self.report(history, f"val/{name}", change, advice, not model.adversarial, limit=-self.worse)
        return None
