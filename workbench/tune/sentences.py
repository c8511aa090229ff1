"""What a sweep has found, in sentences."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator

from workbench.tune.results import FAILED, PRUNED, RUNNING, Results, Row, show, show_score, show_time
from workbench.tune.rounds import beyond, numeric

LEADERS = 10  # whose choices are counted
LEADING = 0.65  # share of them that a choice has at least where it is worth a sentence


def sentences(results: Results) -> list[str]:
    """Findings, one a line: how many trials there are, the best, what the leaders share, borders, chance, failures."""
    lines = [*_counts(results)]
    if results.ranked:
        best = results.ranked[0]
        where = f", {show_time(best.seconds)}" if best.seconds else ""
        lines.append(
            f"Best: trial {best.trial}, {results.objective} {show_score(best.score)} "
            f"({results.point(best.values)}{where})."
        )
        lines += [*_leaders(results), *_importance(results), *_rounds(results), *_border(results), *_chance(results)]
    return [*lines, *_failures(results)]


def _counts(results: Results) -> Iterator[str]:
    rows, planned = results.rows, sum(len(round.points) for round in results.rounds)
    counts = Counter(row.state for row in rows)
    parts = [f"{sum(row.score is not None for row in rows)} with a result"]
    parts += [f"{counts[state]} {state}" for state in (PRUNED, FAILED, RUNNING) if counts[state]]
    parts += [f"{planned - len(rows)} not started"] if planned > len(rows) else []
    yield f"{_trials(max(planned, len(rows)))}: {', '.join(parts)}."


def _leaders(results: Results) -> Iterator[str]:
    """The choice that most of the best took, beside how often it was tried at all."""
    ranked = results.ranked
    top = ranked[: min(LEADERS, len(ranked) // 2)]
    if len(top) < 3:
        return
    for p in results.parameters:
        if not p.choices:
            continue
        among_top = Counter(str(row.values[p.name]) for row in top if p.name in row.values)
        among_all = Counter(str(row.values[p.name]) for row in ranked if p.name in row.values)
        label, count = max(among_top.items(), key=lambda item: item[1], default=("", 0))
        if count >= LEADING * len(top) and count / len(top) > 1.25 * among_all[label] / len(ranked):
            shown = next(show(c) for c in p.choices if str(c) == label)
            yield (
                f"{results.names[p.name]}: {shown} in {count} of the top {len(top)} "
                f"({among_all[label]} of all {len(ranked)})."
            )


def _importance(results: Results) -> Iterator[str]:
    if len(results.importance) > 1:
        shares = [f"{results.names[name]} ({share:.0%})" for name, share in results.importance.items()]
        yield f"Most important: {shares[0]}, then {', '.join(shares[1:4])}."


def _rounds(results: Results) -> Iterator[str]:
    """Why each round past the first was made, and whether it gave a better result than all before it."""
    start = 0
    for round in results.rounds:
        before = [row for row in results.ranked if row.trial < start]
        tried = [row for row in results.ranked if start <= row.trial < start + len(round.points)]
        start += len(round.points)
        if round.kind in ("extend", "refine") and before:
            why = round.why[:1].upper() + round.why[1:]
            for name in sorted(results.names, key=len, reverse=True):  # one may be part of another
                why = why.replace(name, results.names[name])
            yield f"{why}: {_outcome(results, before[0], tried, len(round.points))}."


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def _outcome(results: Results, before: Row, tried: list[Row], count: int) -> str:
    if not tried:
        return "no result yet"
    better = results.sign * tried[0].score < results.sign * before.score
    change = f"{show_score(before.score)} -> {show_score(tried[0].score)}"
    trials = _trials(count)
    return f"better ({change}, {trials})" if better else f"no better ({change}, {trials})"


def _border(results: Results) -> Iterator[str]:
    """Of a finished sweep: whether the best lies inside the space, or on a border that nothing past was tried of."""
    best, rounds = results.ranked[0], results.rounds
    finished = [row for row in results.rows if row.state != RUNNING]
    if not rounds or rounds[-1].kind != "repeat" or len(finished) < sum(len(round.points) for round in rounds):
        return
    ranges = numeric(results.space, best.values)
    past = {p.name: beyond(p, best.values, results.ranked, results.settings) for p in ranges}
    at = {name: to for name, to in past.items() if to is not None}
    places = ", ".join(f"{results.names[name]} = {show(best.values[name])}" for name in at)
    if at and any(to != best.values[name] for name, to in at.items()):
        yield f"The best still lies at the border of the space: {places}. A larger `extend` or range may be better."
    elif at:
        yield f"The best lies at the `limits` of the space: {places}."
    elif ranges:
        yield "The best lies inside the space that was tried."


def _chance(results: Results) -> Iterator[str]:
    """How far the best differs by its seed alone, beside its lead over the second."""
    best, repeats = results.ranked[0], results.repeats
    if not repeats:
        return
    scores = [best.score, *(row.score for row in repeats)]
    spread = max(scores) - min(scores)
    yield (
        f"The best with {len(scores)} seeds: {results.objective} {show_score(statistics.mean(scores))} on average, "
        f"{show_score(min(scores))} to {show_score(max(scores))}."
    )
    second = next((row for row in results.ranked[1:] if row.values != best.values), None)
    if second is None:
        return
    lead = results.sign * (second.score - best.score)
    text = f"Its lead over the second, trial {second.trial} ({results.point(second.values)}), is {lead:.2g}"
    if lead <= spread:
        yield f"Warning: {text[:1].lower()}{text[1:]}: within that spread of {spread:.2g}, so chance may rank them."
    else:
        yield f"{text}: more than that spread of {spread:.2g}."


def _failures(results: Results) -> Iterator[str]:
    failed = [row for row in results.rows if row.state == FAILED]
    reasons = Counter((row.reason.splitlines() or ["no reason"])[0][:160] for row in failed)
    for reason, count in reasons.most_common():
        trials = [row.trial for row in failed if (row.reason.splitlines() or ["no reason"])[0][:160] == reason]
        which = ", ".join(map(str, trials[:5])) + (", ..." if count > 5 else "")
        yield f"{count} failed ({'trial' if count == 1 else 'trials'} {which}): {reason}"
    if failed:
        yield "`sweep ... --retry failed` tries those again."
