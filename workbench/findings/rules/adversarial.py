"""A generator and a discriminator that no longer learn from each other: a fault where images suffer, else a note."""

from __future__ import annotations

import math

from workbench.findings.engine import Found
from workbench.findings.history import History
from workbench.findings.progress import progress_of

COUNT = 12  # values of losses and scores that are looked at


def discriminator_too_strong(history: History) -> Found | None:
    """The discriminator is never wrong, so the generator learns nothing from it."""
    model, losses, limit = history.model, history["train/discriminator"].tail(COUNT), 0.1
    start, before = history.start("train/discriminator", 3), history.start("train/adversarial", 3)
    if not model.adversarial or len(losses) < COUNT or not start > 0:
        return None
    share = sorted(losses.values)[7] / start  # single batches may surprise it: eight of twelve have to be near 0
    now = history["train/adversarial"].recent(COUNT)
    # A critic without bounds may go below 0. A generator whose loss has fallen to 0.7 has gained something.
    if not share <= limit or min(losses.values) < 0 or not now > 0.7 * before:
        return None
    progress, network = progress_of(history), model.discriminator
    advice = f"It is never wrong, and the generator gains nothing. Slow it down: {model.lower_rate(network, 4)}."
    return Found(network, share, limit, advice, progress.poor or progress.adversarial_only)


def discriminator_inert(history: History) -> Found | None:
    """The discriminator has never told the two apart."""
    real, fake, model = history["train/score_real"], history["train/score_fake"], history.model
    if not model.adversarial or len(real) < COUNT or real.steps[-1] - real.steps[0] < 100:
        return None
    # Its weights stay where they are, even though its optimizer steps: initial ones may tell apart a little by chance.
    ratios = [history[f"update/{name}"].finite().tail(COUNT) for name in model.discriminators]
    stays = any(len(ratio) >= COUNT and ratio.median() < 1e-4 for ratio in ratios)
    network, limit = model.discriminator, 0.05  # difference of the mean scores, in logits, that counts as telling apart
    gaps = [abs(r - f) for r, f in zip(real.values, fake.values, strict=False) if math.isfinite(r - f)]
    if not gaps or max(gaps) > (0.5 if stays else limit):
        return None
    start = history.start("train/discriminator", 3)
    if start > 0 and history["train/discriminator"].recent(COUNT) < 0.95 * start:
        return None
    advice = f"See that its optimizer steps and it sees both, or raise its rate: {model.lower_rate(network, 0.25)}."
    return Found(network, max(gaps), limit, advice)


def discriminator_overfits(history: History) -> Found | None:
    """The discriminator has memorized the training images (the r_t of StyleGAN2-ADA, Karras et al. 2020)."""
    known, unseen = (history[f"game/sign_{split}"].tail(4) for split in ("train", "val"))
    if len(known) < 4 or len(unseen) < 4:
        return None
    limit = gap = 0.6
    if min(known.values) <= limit or max(unseen.values) > min(known.values) - gap:
        return None
    network = history.model.discriminator
    advice = f"Use more data or augmentation, or slow it down: {history.model.lower_rate(network, 4)}."
    # With few images most discriminators end here; it does harm where the generator gets nowhere.
    return Found(network, known.median(), limit, advice, unseen.median() < 0 or progress_of(history).poor)


def mode_collapse(history: History) -> Found | None:
    """Whatever the input, the output is the same."""
    diversity, model, limit = history["game/diversity"].tail(2), history.model, 0.1
    if not model.adversarial or len(diversity) < 2 or max(diversity.values) >= limit:
        return None
    if model.color:  # with colors this weak against the targets' a colorizer has not begun to color
        strength = history["game/color_strength"].tail(2)
        harmless = not len(strength) or min(strength.values) < 0.2
    else:
        harmless = bool(progress_of(history).beats_trivial)
    advice = f"See that it gets its input, or slow the discriminator: {model.lower_rate(model.discriminator, 4)}."
    return Found(model.main_network(), diversity.median(), limit, advice, not harmless)


def imbalance(history: History) -> Found | None:
    """One of the generator's losses dominates the other."""
    adversarial = history["train/adversarial"]  # a generator that trains alone at first is not judged yet
    losses = {name: history.model.losses.get(name) for name in ("adversarial", "reconstruction")}
    switched_off = any(weight is not None and weight.value == 0 for weight in losses.values())
    if not len(adversarial) or switched_off:
        return None
    limit = 100.0
    ratios = history["game/gradient_ratio"].since(adversarial.steps[0]).tail(2).finite()
    if len(ratios) < 2 or not (min(ratios.values) > limit or max(ratios.values) < 1 / limit):
        return None
    ratio = ratios.median()
    strong, weak = ("adversarial", "reconstruction") if ratio > 1 else ("reconstruction", "adversarial")
    factor = max(ratio, 1 / max(ratio, 1e-12))  # without any gradient of the adversarial loss the ratio is 0
    weight = losses[strong]
    lower = weight.set((weight.value or 1.0) * 10 / factor) if weight else f"a smaller weight of the {strong} loss"
    advice = f"The {strong} loss dominates the {weak} loss at the generator's output. Try {lower}."
    return Found(history.model.main_network(), ratio, limit if ratio > 1 else 1 / limit, advice)
