"""The course of the loss and of the metrics: NaN, up, flat, to and fro, or apart from each other."""

from __future__ import annotations

import itertools
import math
from statistics import median

from workbench.findings.history import History
from workbench.findings.progress import Found, error_ratios, is_warming_up, progress_of, rise


def nonfinite_loss(history: History) -> Found | None:
    """A loss that is NaN or infinite."""
    if history.nonfinite is None:
        return None
    step, name = history.nonfinite
    where = f"{'the training loss' if name == 'loss' else name} at step {step}"
    if history.nonfinite_gradient is not None:
        where += "; gradients first in {1}, at step {0}".format(*history.nonfinite_gradient)
    key = history.model.key("--trainer.detect_anomaly true names the operation")
    advice = f"Look at the batch of that step, and for log, sqrt or a division by 0 in the loss{key}."
    return Found(where, "nan or inf", "a number", advice, step=step)


def loss_surge(history: History) -> Found | None:
    """The loss leaves a level that it had reached, and does not come back."""
    progress, model = progress_of(history), history.model
    if progress.adversarial_only:
        return None
    loss, count, limit = history[progress.loss].finite(), 3, 2.0
    length = 15 if progress.loss == "loss" else 5  # steps whose median is one value of the smoothed loss
    if len(loss) < length * 2 * count:
        return None
    levels = [chunk.median() for chunk in loss.chunks(length)]
    lowest, latest = min(levels[:-count]), min(levels[-count:])
    surged = latest > limit * lowest if lowest > 0 else latest - lowest > abs(lowest)
    # Half of what had been gained has to be lost again; where that is next to nothing, the level itself counts.
    surged = surged and latest - lowest > 0.5 * max(progress.start - lowest, 0)
    if not surged or latest - lowest < 4 * loss.tail(count * length).spread() / math.sqrt(length):
        return None
    value = latest / lowest if lowest > 0 else latest - lowest
    lower = model.lower_rate(model.main_network(), 3)
    advice = f"Take an earlier checkpoint with a smaller rate, {lower}, and clip: {model.clipping.set(0.1)}."
    return Found(progress.loss, value, limit, advice)


def loss_flat(history: History) -> Found | None:
    """After a fair number of steps the network is no better than an output that needs no network."""
    progress, model, near = progress_of(history), history.model, 0.02  # by what share an error counts as the same
    harmed, value, limit = not model.pretrained and not model.adversarial, 1 - progress.fallen, 0.98
    if model.adversarial:
        moves = progress.adversarial_only or progress.beats_trivial or progress.falling
        if history.step < 300 or moves or progress.fallen > near:
            return None
    elif any(is_warming_up(history[f"lr/{name}"]) for name in model.networks()) or not progress.poor:
        return None
    elif progress.beats_trivial is None:
        if progress.fallen > near:
            return None
    else:
        if min(error_ratios(history).values, default=1.0) < 0.9:
            return None  # it had been better: whatever happened since, it was not flat
        error, nothing, mean = (history[f"probe/{name}"].last for name in ("error", "nothing", "mean"))
        # Above 0.8 of the mean target's error nothing but the mean has been learned; after so long, any error counts.
        harmed = error > 0.8 * mean or abs(rise(nothing, error)) < near or history.step >= 1000
        value, limit = error / max(min(progress.trivial_errors), 1e-12), 1.0
    higher, lower = (model.lower_rate(model.main_network(), by) for by in (0.3, 3))
    advice = f"See that input and target belong together, and try another rate: {higher} or {lower}."
    return Found("training", value, limit, advice, harmed)


def loss_oscillates(history: History) -> Found | None:
    """The smoothed loss swings to and fro, far beyond the noise of single batches."""
    progress, model, count, limit = progress_of(history), history.model, 12, 0.5
    if model.adversarial:
        return None
    loss = history["loss"].finite()
    for length in (4, 10, 25):  # steps whose median is one value: a swing shows only where its period is longer
        chunks = loss.tail(length * count).chunks(length)
        if len(chunks) < count:
            return None
        levels = [chunk.median() for chunk in chunks]
        moves = [after - before for before, after in itertools.pairwise(levels)]
        sure = 5 * max(median(chunk.error_of_median() for chunk in chunks), 1e-12)
        turns = sum(a * b < 0 and min(abs(a), abs(b)) > sure for a, b in itertools.pairwise(moves))
        share = turns / (len(moves) - 1)
        swing = median(abs(move) for move in moves) / max(abs(median(levels)), 1e-12)
        if share > limit and swing > 0.5:
            advice = f"Shuffle the batches, or lower the rate: {model.lower_rate(model.main_network(), 3)}."
            return Found("loss", share, limit, advice, progress.poor)
    return None


def overfitting(history: History) -> Found | None:
    """The validation loss rises while the training loss falls."""
    held_out, model, limit = history["val/loss"].finite(), history.model, 1.2
    if len(held_out) < 4:
        return None
    lowest = min(held_out.values[:-3])
    at = held_out.steps[held_out.values.index(lowest)]
    above = rise(lowest, min(held_out.tail(3).values))
    if above <= limit - 1:
        return None
    train = history[progress_of(history).loss].finite()
    before, after = train.until(max(at, 10) + 1).tail(50), train.tail(50)
    if len(before) < 3 or len(after) < 3 or not rise(before.median(), after.median()) < -0.02:
        return None
    advice = f"Use more data, augmentation or weight decay, or stop earlier{model.key('--early_stopping.patience 5')}."
    return Found("val/loss", 1 + above, limit, advice, not model.adversarial)


def metric_disagrees(history: History) -> Found | None:
    """The validation loss falls, and a metric on the same samples gets worse."""
    losses, model = dict(history["val/loss"].finite()), history.model
    for name, higher in model.higher_is_better.items():
        metric = history[f"val/{name}"].finite()
        if len(metric) < 3 or metric.last_step not in losses:
            continue
        sign = 1 if higher else -1
        # What both were when the metric was best, against the better of the last two validations.
        best, at = max((sign * value, step) for step, value in list(metric)[:-2])
        change = rise(best, max(sign * value for value in metric.tail(2).values))
        latest = max(losses.get(step, math.inf) for step in metric.tail(2).steps)
        fall = -rise(losses.get(at, latest), latest)
        if change < -0.03 and fall > 0.1:
            advice = "Check the metric's direction and range, or take a loss that is nearer to it."
            return Found(f"val/{name}", change, -0.03, advice, not model.adversarial)
    return None
