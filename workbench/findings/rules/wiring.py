"""What is put together wrongly: no setting of a rate can fix it."""

from __future__ import annotations

from workbench.findings.engine import Found
from workbench.findings.history import History, Parameter
from workbench.findings.rules.layers import blocked_units


def gradients_not_cleared(history: History) -> Found | None:
    """The gradients of one step are still there when those of the next are added."""
    # Three have to be seen: a validation in between clears gradients, whatever the loop does.
    network, found, share = often_above_0(history, "carried", count=3, least=0.6)
    advice = "Call optimizer.zero_grad() before every backward pass; to add up batches, set accumulate_grad_batches."
    return Found(network, share, 0.0, advice) if found else None


def discriminator_leaks(history: History) -> Found | None:
    """The discriminator's backward pass reaches the generator."""
    network, found, _ = often_above_0(history, "leaked", count=2, least=0.51)
    advice = "Give the discriminator fake.detach(), and clear the generator's gradients before its own backward pass."
    return Found(network, max(found), 0.0, advice) if found else None


def often_above_0(history: History, table: str, count: int, least: float) -> tuple[str, list[float], float]:
    """The first network with so many of its last eight values above 0: its name, these values, and their share."""
    for network, series in history.table(table).items():
        latest = series.finite().tail(8).values
        found = [value for value in latest if value > 0]
        if len(found) >= count and len(found) >= least * len(latest):
            return network, found, len(found) / len(latest)
    return "", [], 0.0


ENOUGH = 4  # measured steps, beyond those whose gradients were not finite (AMP leaves such steps out)


def parameters_unchanged(history: History) -> Found | None:
    """A tensor that should be trained is not: its optimizer steps, its rate is not 0, and yet it stays as it is."""
    parameters = {**history.model.parameters, **history.model.unfrozen}
    reasons = {name: why_unchanged(history, name, p) for name, p in parameters.items() if not p.helper}
    stuck = {name: reason for name, reason in reasons.items() if reason is not None}
    zero = [name for name, reason in stuck.items() if reason == "its gradient is 0"]
    if zero and is_explained(history, {parameters[name].network for name in zero}):
        stuck = {name: reason for name, reason in stuck.items() if name not in zero}
    if not stuck:
        return None
    name, reason = next(iter(stuck.items()))
    where = name + (f" (and {len(stuck) - 1} more tensors)" if len(stuck) > 1 else "")
    advice = f"Look for .detach() and no_grad() before the loss, and at configure_optimizers: {reason}."
    return Found(where, f"unchanged: {reason}", "changes at every step", advice)


def why_unchanged(history: History, name: str, parameter: Parameter) -> str | None:
    if parameter.optimizer is None:
        steps = sum(len(series) for key, series in history.scalars.items() if key.startswith("lr/"))
        return "no optimizer holds it" if steps >= ENOUGH else None
    gradient = history.row("gradient", name)
    if len(history.row("missing", name)) >= ENOUGH and not len(gradient):
        return "it gets no gradient"
    finite = gradient.finite()
    if parameter.role != "weight" or len(finite) < ENOUGH:
        return None  # a bias before a norm has no gradient but rounding errors, and all is well
    if not any(finite.tail(2 * ENOUGH).values):
        # Only where it has never been anything else: steps that are too large kill units as well.
        return "its gradient is 0" if not any(finite.values) else None
    moved = history.row("moved", name).tail(2 * ENOUGH)
    if len(moved) >= ENOUGH and not any(moved.values) and len(finite) == len(gradient):
        return "its optimizer does not move it"
    return None


def is_explained(history: History, networks: set[str]) -> bool:
    """Whether gradients of 0 come from units that are dead or saturated, or have vanished on their way."""
    for network in networks:
        medians = [series.finite().median() for series in history.rows("gradient", network).values()]
        present = [value for value in medians if value > 0]
        # Where gradients are this much smaller than the largest, those of 0 have vanished: another fault.
        if not present or not (blocked_units(history) or min(present) < 1e-6 * max(present)):
            return False
    return True


def labels_swapped(history: History) -> Found | None:
    """The discriminator learns to tell the two apart the wrong way round, and both sides are content."""
    real, fake, count = history["train/score_real"], history["train/score_fake"], 12
    if not history.model.adversarial or len(real) < count:
        return None
    gaps = [r - f for r, f in zip(real.values, fake.values, strict=False)][-count:]
    start = history.start("train/discriminator", 3)
    now = history["train/discriminator"].recent(count)
    # LSGAN is at half of its first loss in balance. A critic without bounds (Wasserstein) wins by a loss below 0.
    won = now < 0.45 * start if start > 0 else start <= 0 and now < 0
    is_reversed = bool(gaps) and sum(gap < 0 for gap in gaps) / len(gaps) >= 0.9
    if not (is_reversed and won) and not both_content(history, count):
        return None
    gap = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    advice = "Label real samples 1 and generated ones 0, and see in which order the discriminator's loss takes them."
    return Found("discriminator", gap, "score_real above score_fake", advice)


def both_content(history: History, count: int) -> bool:
    """Whether both losses are near 0, which is impossible for sides that want the opposite."""
    for name in ("train/discriminator", "train/adversarial"):
        latest = history[name].tail(count).values
        if len(latest) < count or not 0 <= max(latest) < 0.2 * history.start(name, 3):
            return False
    return True
