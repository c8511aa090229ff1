"""The learning rate, and the course of loss and metrics: NaN, up, flat, to and fro, or apart from each other."""

from __future__ import annotations

import itertools
import math
from statistics import median

from workbench.findings.engine import Found
from workbench.findings.history import History, Series
from workbench.findings.progress import Progress, error_ratios, is_warming_up, level, noise_between, progress_of, rise
from workbench.findings.rules.layers import outgrows_its_steps

LARGE = 0.1  # of a weight: the median step that is too large
WILD = 2.0  # a step larger than the weights themselves, even a single one: nothing of what they were is left
CLIMB = 2.0  # rise of the loss, as a share of where it began, that counts as climbing
BURST = 10.0  # the same of the last values before the loss was not finite
JUMP = 5.0  # factor on the rate from one step to a later one that explains a loss which goes off right after it
SMALL = 1e-4  # of a weight: the median step that is too small


def update_ratio(history: History, network: str) -> Series:
    """The median over a network's weights of |step| / |weight|, at each measured step."""
    return history[f"update/{network}"].finite()


def highest(series: Series) -> float:
    return max(series.finite().values, default=math.nan)


def learning_rate_high(history: History) -> Found | None:
    """Each step throws the weights about, or the loss climbs."""
    model = history.model
    for network in model.networks():
        found = (critic_too_fast if network in model.discriminators else too_fast)(history, network)
        if found is not None:
            lower, clip = model.lower_rate(network), model.clipping.set(0.1)
            advice = f"The steps are too large for the weights: {lower}, a warm-up, or clipping: {clip}."
            return Found(network, *found, advice)
        ratio = update_ratio(history, network).tail(10)
        learns = network not in model.discriminators and not progress_of(history).far_off
        if learns and len(ratio.since(10)) >= 10 and ratio.median() > LARGE:
            lower = model.lower_rate(network, 3)
            advice = f"Steps are large against the weights, and yet it learns; a smaller rate may end better: {lower}."
            return Found(network, ratio.median(), LARGE, advice, is_fault=False)
    return None


def critic_too_fast(history: History, network: str) -> tuple[float, float] | None:
    """A GAN's losses say little about a rate; only steps as large as the weights are clearly too large."""
    wildest, loss = highest(update_ratio(history, network)), "train/discriminator"
    # It may recover, as a network that starts anew with whatever weights the wild steps have left.
    off = rise(history.start(loss, 3), highest(history[loss])) > CLIMB
    return (wildest, LARGE) if wildest >= WILD and (off or progress_of(history).poor) else None


def too_fast(history: History, network: str) -> tuple[float, float] | None:
    """What was measured, and its limit, where a network's steps are too large."""
    progress, ratios = progress_of(history), update_ratio(history, network)
    if progress.far_off:
        return None
    loss, ratio = history[progress.loss].finite(), ratios.tail(10)
    harmed = progress.blown_up or (progress.now > progress.start and not progress.falling) or progress.poor
    went_off = rise(progress.start, highest(loss)) > BURST  # an easy task may be learned in spite of it
    # Of all steps so far: weights that were replaced once are large from then on, and steps small against them.
    wildest = highest(ratios)
    if wildest > WILD and (harmed or went_off):
        return wildest, LARGE
    settled = ratio.since(10)  # Adam's first steps are as large as its rate, whatever the gradients
    if len(settled) >= 5 and settled.median() > LARGE and harmed:
        return settled.median(), LARGE
    jump = rate_jump(history, network)
    if jump > JUMP and progress.blown_up:
        return jump, JUMP
    faint = ratio.median() < SMALL
    if climbs(history, progress) and not faint and not outgrows_its_steps(history, network):
        return highest(loss.tail(10)) / max(abs(progress.start), 1e-12), CLIMB
    return None


def climbs(history: History, progress: Progress) -> bool:
    """Whether the loss rises from part to part of the run, or went off before it was not finite."""
    loss = history[progress.loss].finite()
    if math.isnan(progress.start) or progress.adversarial_only:
        return False
    if not progress.finite and len(loss):
        return rise(progress.start, highest(loss.tail(10))) > (BURST if progress.start > 0 else 1)
    if history["game/gradient_ratio"].last > 1 or len(loss) < 20:
        return False  # the adversary pulls harder than the reconstruction, and that is what it costs
    levels = [part.median() for part in loss.parts(4)]
    rising = all(after > before for before, after in itertools.pairwise(levels))
    return rising and rise(progress.start, level(loss)) > CLIMB


def rate_jump(history: History, network: str) -> float:
    """The highest rate against the usual one. Warm-up climbs as well, but from far below what the run then uses."""
    rates = history[f"lr/{network}"].tail(100)
    return max(rates.values) / rates.median() if len(rates) >= 20 and rates.median() > 0 else 0.0


def learning_rate_low(history: History) -> Found | None:
    """The weights hardly move, and neither does the loss."""
    progress, model = progress_of(history), history.model
    for network in model.networks():
        since = warm_since(history, network)
        if since is None or network in model.discriminators:
            continue
        measured = update_ratio(history, network).tail(20).since(since)
        ratio = measured.median()
        if len(measured) < 5 or ratio >= SMALL:
            continue
        patience = 50 if ratio < SMALL / 3 else 200  # steps
        if history.step - since < patience or loss_moves(history, progress) or progress.blown_up:
            continue
        layers = [series.finite().tail(10).median() for series in history.rows("update", network).values()]
        some_move = any(layer > 1e-3 for layer in layers)  # then it is not the rate that keeps the others still
        if progress.beats_trivial or some_move:
            continue
        if progress.beats_trivial is None and (model.pretrained or ratio > SMALL / 3):
            continue
        higher = model.lower_rate(network, min(max(ratio / 1e-3, 1e-4), 0.1))
        advice = f"The weights move by less than 1e-4 a step, and the loss stays where it was: {higher}."
        return Found(network, ratio, SMALL, advice)
    return None


def warm_since(history: History, network: str) -> int | None:
    """The step from which on the rate was at half its maximum or more; None while it still climbs, or is 0."""
    rates = history[f"lr/{network}"]
    if not len(rates):
        return 0
    top = max(rates.values)
    if is_warming_up(rates) or top == 0:
        return None
    return next((step for step, value in rates if value >= top / 2), None)


def loss_moves(history: History, progress: Progress) -> bool:
    """Whether the loss has moved by more than its own noise, and by a share of its first level."""
    first, *_, last = history[progress.loss].finite().parts(4)
    return first.median() - last.median() > max(0.05 * abs(first.median()), noise_between(first, last))


def nonfinite_loss(history: History) -> Found | None:
    """A loss that is NaN or infinite."""
    if history.nonfinite is None:
        return None
    step, name = history.nonfinite
    where = f"{'the training loss' if name == 'loss' else name} at step {step}"
    if history.nonfinite_gradient is not None:
        where += "; gradients first in {1}, at step {0}".format(*history.nonfinite_gradient)
    advice = "Look at the batch of that step, and for log, sqrt or a division by 0: detect_anomaly names it."
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
    advice = "Use more data, augmentation or weight decay, or stop earlier: early_stopping.patience."
    return Found("val/loss", 1 + above, limit, advice, not model.adversarial)


def metric_disagrees(history: History) -> Found | None:
    """The validation loss falls, and a metric on the same samples gets worse."""
    losses, model = dict(history["val/loss"].finite()), history.model
    for name, higher in model.higher_is_better.items():
        metric = history[f"val/{name}"].finite()
        if len(metric) < 3 or metric.steps[-1] not in losses:
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
