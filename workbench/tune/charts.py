"""Charts of a sweep: which hyper-parameters matter, which values are best, and how fast the best trials learn."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.tune.results import (
    FAILED,
    MIN_FOR_IMPORTANCE,
    PRUNED,
    RUNNING,
    Results,
    Row,
    shorten,
    show,
    show_score,
    wrap,
)
from workbench.tune.space import Parameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

TOP = 5  # trials whose lines are thicker, and whose curves are drawn
COLORS = "viridis"  # from the best to the worst
LOG_FROM = 20.0  # ratio of the worst to the best score from which their axis is logarithmic
MIN_CELLS, MAX_CELLS = 3, 8  # of a heat map in each direction, where no grid says how many


def draw_charts(results: Results, folder: Path, smoothing: float = 0.0) -> tuple[list[Path], list[str]]:
    """Draw what there are trials for.

    Returns:
        The files, and what was left out with the reason, such as "importance: 4 trials have a result, ...".
    """
    ranked, drawn, skipped = results.ranked, [], []
    if len(ranked) < 2 or not results.parameters:
        return [], ["anything: fewer than two trials with different values have a result"]
    figures: dict[str, Figure] = {"parallel": parallel(results)}
    if results.importance:
        figures["importance"] = importance(results)
    elif len(ranked) < MIN_FOR_IMPORTANCE and len(results.parameters) > 1:
        skipped.append(f"importance: {len(ranked)} trials have a result, it takes {MIN_FOR_IMPORTANCE}")
    if any(p.choices for p in results.parameters):
        figures["choices"] = choices(results)
    if any(len(row.curve) > 1 for row in ranked[:TOP]):
        figures["curves"] = curves(results, smoothing)
    if pair := heat_map_pair(results):
        figures["heat_map"] = heat_map(results, *pair)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        drawn.append(folder / f"{name}.png")
        figure.savefig(drawn[-1])
    return drawn, skipped


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; without pyplot it needs no display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    return figure


# ---------------------------------------------------------------------- scales


def is_log(scores: Sequence[float]) -> bool:
    """Whether scores are positive, and so far apart that an axis has to be logarithmic."""
    return min(scores) > 0 and max(scores) > LOG_FROM * min(scores)


def color_norm(results: Results) -> Normalize:
    """Scores -> [0, 1] for the color map, 0 for the best; the worst tenth of many share one color."""
    from matplotlib.colors import LogNorm, Normalize

    scores = [row.score for row in results.ranked]
    worst = scores[-1 if len(scores) < 10 else int(0.9 * len(scores))]
    low, high = sorted((scores[0], worst))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return LogNorm(low, high, clip=True) if is_log(scores) else Normalize(low, high, clip=True)


def colors(results: Results) -> str:
    """The color map's name: the best score is dark, whichever way is better."""
    return COLORS if results.sign == 1 else f"{COLORS}_r"


def ticks(low: float, high: float, log: bool, integer: bool) -> list[float]:
    """Round numbers between two ends, both included where they are round."""
    from matplotlib.ticker import MaxNLocator

    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
            found = [f * 10.0**e for e in range(first, last + 1) for f in factors]
            found = [v for v in found if low * 0.999 <= v <= high * 1.001]
            if len(found) >= 3:
                break
        found = found[:: max(1, math.ceil(len(found) / 7))]
        return found if len(found) > 1 else [low, high]
    found = MaxNLocator(5, integer=integer).tick_values(low, high)
    return [v for v in found.tolist() if low - 1e-9 * abs(low) <= v <= high + 1e-9 * abs(high)]


def apart(values: Sequence[float]) -> list[str]:
    """Numbers with as many digits as they differ in, at least three."""
    for digits in range(3, 10):
        found = [f"{value:.{digits}g}" for value in values]
        if len(set(found)) == len(set(values)):
            break
    return [text.replace("e-0", "e-").replace("e+0", "e") for text in found]


def range_ticks(results: Results, parameter: Parameter, low: float, high: float, ends: bool = True) -> list[float]:
    """What was tried, where that is a few integers; else round numbers, behind the ends where these are wanted."""
    tried = {row.values[parameter.name] for row in results.with_(parameter)}
    if parameter.is_integer and len(tried) <= 8:
        return sorted(tried)
    found = ticks(low, high, parameter.log, parameter.is_integer)
    return [low, high, *found] if ends else found


def tried_range(results: Results, parameter: Parameter) -> Parameter:
    """A range, wide enough for everything that was tried."""
    tried = [row.values[parameter.name] for row in results.with_(parameter)]
    return dataclasses.replace(parameter, low=min([parameter.low, *tried]), high=max([parameter.high, *tried]))


# ---------------------------------------------------------------------- parallel coordinates


def parallel(results: Results) -> Figure:
    """One line a trial through its values, colored by its score; the best on top and thicker."""
    parameters, ranked = results.parameters, results.ranked
    count = len(parameters)
    width = max(7.0, (2.1 if count <= 8 else 1.5) * (count + 1))
    figure = new_figure(width, 5.8)
    axes = figure.subplots()
    axes.axis("off")
    norm, scores = color_norm(results), [row.score for row in ranked]
    beside = {(p.name, row.trial): place for p in parameters if p.choices for row, place in _spread(results, p)}

    def height(row: Row, parameter: Parameter) -> float:
        if parameter.name not in row.values:
            return -0.12
        value = row.values[parameter.name]
        if not parameter.choices:
            return tried_range(results, parameter).position(value)
        labels = [repr(label) for label in parameter.choices]
        return (labels.index(repr(value)) + 0.5 + 0.6 * beside[parameter.name, row.trial]) / len(labels)

    def score_height(score: float) -> float:
        low, high = min(scores), max(scores)
        if low == high:
            return 0.5
        log = is_log(scores)
        up = math.log(score / low) / math.log(high / low) if log else (score - low) / (high - low)
        return 1 - up if results.sign == 1 else up

    color_map = _color_map(results)
    for row in results.rows:
        if row.state in (FAILED, PRUNED) and row.values and row.kind != "repeat":
            color = "crimson" if row.state == FAILED else "gray"
            axes.plot(range(count), [height(row, p) for p in parameters], "--", color=color, lw=0.9, alpha=0.6)
    for place, row in reversed(list(enumerate(ranked))):
        heights = [*(height(row, p) for p in parameters), score_height(row.score)]
        thickness = 3.0 if place == 0 else 2.0 if place < TOP else 1.0
        axes.plot(
            range(count + 1),
            heights,
            color=color_map(norm(row.score)),
            lw=thickness,
            alpha=1.0 if place < TOP else 0.65,
            marker="o",
            ms=thickness + 1,
        )
    for x, p in enumerate(parameters):
        if p.choices:
            found = {(i + 0.5) / len(p.choices): shorten(show(label)) for i, label in enumerate(p.choices)}
        else:
            scale = tried_range(results, p)
            values = range_ticks(results, p, scale.low, scale.high)
            found = {scale.position(v): show(round(v) if p.is_integer else float(v)) for v in values}
        if p.when is not None:
            found[-0.12] = "not used"
        _axis(axes, x, wrap(results.names[p.name]), found)
    low, high = min(scores), max(scores)
    values = [low, high, *ticks(low, high, is_log(scores), False)] if low < high else [low]
    found = dict(zip(map(score_height, values), apart(values), strict=True))
    _axis(axes, count, wrap(results.objective), found, side="left")
    axes.set_xlim(-0.2, count + 0.2)
    lines = [axes.plot([], [], color=color_map(norm(scores[0])), lw=3, label=f"the best (trial {ranked[0].trial})")[0]]
    for state, color in ((FAILED, "crimson"), (PRUNED, "gray")):
        number = sum(row.state == state and bool(row.values) for row in results.rows)
        if number:
            lines += axes.plot([], [], "--", color=color, label=f"{number} {state}")
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)
    title = f"{results.name}: {len(ranked)} trials by {results.objective}, the best at the top right"
    figure.suptitle(fill(title, int(10 * width)))
    return figure


def _axis(axes: Axes, x: float, name: str, found: dict[float, str], side: str = "right") -> None:
    """A vertical axis of parallel coordinates, with labels on one side; later ones without room are left out."""
    low = min([0.0, *found])
    axes.plot([x, x], [low, 1], color="black", lw=1, zorder=5)
    axes.text(x, 1.06, name, ha="center", va="bottom", fontsize=10, fontweight="bold")
    placed: list[float] = []
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.8, "edgecolor": "none"}
    shift = 0.04 if side == "right" else -0.04
    for height, label in found.items():
        if any(abs(height - other) < 0.045 for other in placed):
            continue
        placed.append(height)
        axes.plot([x, x + shift / 2], [height, height], color="black", lw=1, zorder=5)
        where = {"ha": "left" if side == "right" else "right", "va": "center"}
        axes.text(x + shift, height, label, fontsize=8.5, zorder=6, bbox=box, **where)


def _spread(results: Results, parameter: Parameter) -> Iterator[tuple[Row, float]]:
    """Where the lines of one choice lie beside each other, the best on top: -0.5 to 0.5 of its share of the axis."""
    place = {row.trial: -number for number, row in enumerate(results.ranked)}
    groups: dict[str, list[Row]] = {}
    for row in sorted(results.with_(parameter), key=lambda row: place.get(row.trial, -math.inf)):
        groups.setdefault(repr(row.values[parameter.name]), []).append(row)
    for rows in groups.values():
        yield from ((row, (i + 0.5) / len(rows) - 0.5) for i, row in enumerate(rows))


def _color_map(results: Results) -> Any:
    import matplotlib

    return matplotlib.colormaps[colors(results)]


# ---------------------------------------------------------------------- importance, choices, curves


def importance(results: Results) -> Figure:
    """How much each parameter decides whether a trial is among the best."""
    from matplotlib.ticker import PercentFormatter

    found = results.importance
    figure = new_figure(8.0, 1.7 + 0.42 * len(found))
    axes = figure.subplots()
    names = [wrap(results.names[name], 24) for name in found]
    bars = axes.barh(range(len(found)), list(found.values()), color="tab:blue")
    axes.bar_label(bars, [f"{share:.0%}" for share in found.values()], padding=4)
    axes.set_yticks(range(len(found)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(found.values()))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share of the importance (PED-ANOVA)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        "Which hyper-parameters decide whether a trial is\n"
        + fill(f"among the best {results.leaders} of {len(results.ranked)} by {results.objective}", 60),
        fontsize=11,
    )
    return figure


def choices(results: Results) -> Figure:
    """Each choice against the score: a point a trial, and the median."""
    parameters = [p for p in results.parameters if p.choices]
    sizes = [len(p.choices) for p in parameters]
    figure = new_figure(8.5, 0.9 + sum(0.8 + 0.42 * size for size in sizes))
    panels = figure.subplots(len(parameters), 1, squeeze=False, height_ratios=[s + 0.6 for s in sizes], sharex=True)
    norm, color_map = color_norm(results), _color_map(results)
    scores = [row.score for row in results.ranked]
    for axes, p in zip(panels[:, 0], parameters, strict=True):
        labels = []
        for y, choice in enumerate(p.choices):
            rows = [row for row in results.with_(p) if repr(row.values[p.name]) == repr(choice)]
            found = [row.score for row in rows if row.score is not None]
            failed, pruned = (sum(row.state == state for row in rows) for state in (FAILED, PRUNED))
            notes = [f"{len(found)}", f"{failed} failed" if failed else "", f"{pruned} pruned" if pruned else ""]
            labels.append(f"{shorten(show(choice))} ({', '.join(filter(None, notes))})")
            spread = 0.5 * ((np.arange(len(found)) * 0.618) % 1 - 0.5) if len(found) > 1 else np.zeros(len(found))
            shown = {"c": [color_map(norm(s)) for s in found], "s": 32, "edgecolors": "white", "lw": 0.6}
            axes.scatter(found, y + spread, **shown, zorder=3)
            if len(found) > 1:
                middle = statistics.median(found)
                axes.plot([middle, middle], [y - 0.36, y + 0.36], color="crimson", lw=2.5, zorder=2)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_title(wrap(results.names[p.name], 60), fontsize=11, fontweight="bold")
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    _scale(panels[-1, 0].xaxis, panels[-1, 0].set_xscale, scores)
    better = "left" if results.sign == 1 else "right"
    label = f"{results.objective} (the {better}, the better); red: median; in brackets: trials"
    figure.supxlabel(fill(label, 90), fontsize=10)
    return figure


def _scale(axis: Any, set_scale: Any, scores: Sequence[float]) -> None:
    """Make an axis of scores logarithmic where they are far apart, with labels that do not overlap."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    if is_log(scores):
        set_scale("log")
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_locator(FixedLocator(ticks(min(scores), max(scores), True, False)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: show(float(value))))


def smooth(values: Sequence[float], factor: float) -> list[float]:
    """Exponential moving average, without its bias towards 0 at the start: as TensorBoard's smoothing."""
    last, weight, found = 0.0, 0.0, []
    for value in values:
        last, weight = factor * last + (1 - factor) * value, factor * weight + (1 - factor)
        found.append(last / weight)
    return found


def curves(results: Results, smoothing: float) -> Figure:
    """The objective against training time, for the best trials."""
    top = [row for row in results.ranked[:TOP] if row.curve]
    longest = max(row.curve[-1][1] for row in top)
    unit, factor = ("s", 1) if longest < 100 else ("min", 60) if longest < 6000 else ("h", 3600)
    differing = [p.name for p in results.parameters if len({repr(row.values.get(p.name)) for row in top}) > 1]
    figure = new_figure(9.0, 5.0 + 0.22 * len(top))
    axes = figure.subplots()
    drawn: list[float] = []
    for place, row in enumerate(top):
        points = [(s / factor, v) for _, s, v in row.curve if math.isfinite(v)]
        times, found = [s for s, _ in points], [v for _, v in points]
        drawn += found
        label = f"{place + 1}. trial {row.trial}: {show_score(row.score)}, {_fitting(results, row, differing)}"
        if smoothing:
            axes.plot(times, found, color=f"C{place}", lw=0.8, alpha=0.3)
        shown = smooth(found, smoothing)
        axes.plot(times, shown, color=f"C{place}", lw=2, marker="" if len(found) > 40 else ".", label=label)
    _scale(axes.yaxis, axes.set_yscale, drawn)
    axes.set_xlabel(f"training time ({unit})")
    axes.set_ylabel(results.objective)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    note = f" (smoothing {smoothing:g}; thin: as measured)" if smoothing else ""
    axes.set_title(f"The best {len(top)} trials against training time{note}", fontsize=11)
    figure.legend(loc="outside lower left", fontsize=8.5, frameon=False)
    return figure


def _fitting(results: Results, row: Row, names: Sequence[str], length: int = 100) -> str:
    """As many of a row's values as fit into one line, the most important ones first."""
    ordered = sorted((n for n in names if n in row.values), key=lambda n: -results.importance.get(n, 0.0))
    parts = [results.point({name: row.values[name]}) for name in ordered]
    while len(", ".join(parts)) > length:
        parts = [*parts[:-2], "..."]
    return ", ".join(parts)


# ---------------------------------------------------------------------- heat map


def heat_map_pair(results: Results) -> tuple[Parameter, Parameter] | None:
    """The two most important ranges that at least four finished trials have both; None where there are none."""
    ranges = [p for p in results.parameters if not p.choices]
    ranges.sort(key=lambda p: -results.importance.get(p.name, 0.0))
    pairs = [(a, b) for i, b in enumerate(ranges) for a in ranges[:i]]
    for a, b in pairs:
        if sum(a.name in row.values and b.name in row.values for row in results.ranked) >= 4:
            return a, b
    return None


def edges(parameter: Parameter, tried: Sequence[float], sampler: str) -> list[float]:
    """Where the cells of a range end: those that the sampler drew its points in, and as many more as were needed."""
    low, high = parameter.low, parameter.high
    if parameter.is_integer and not parameter.log and max(high, *tried) - min(low, *tried) < 12:
        return [v - 0.5 for v in range(round(min(low, *tried)), round(max(high, *tried)) + 2)]
    cells = min(max(round(math.sqrt(len(tried))), MIN_CELLS), MAX_CELLS)
    start, step = 0.0, 1 / cells
    if sampler == "jittered_grid" and not parameter.is_integer:
        step = 1 / parameter.points
    elif sampler in ("grid", "jittered_grid") and parameter.points > 1:  # the points lie in the middle of their cells
        step = 1 / (parameter.points - 1)
        start = -step / 2
    number = round((1 - 2 * start) / step)
    places = [start + i * step for i in range(number + 1)]
    positions = [parameter.position(v) for v in tried]
    while min(positions) < places[0] - 1e-9:
        places.insert(0, places[0] - step)
    while max(positions) > places[-1] + 1e-9:
        places.append(places[-1] + step)
    return [low * (high / low) ** p if parameter.log else low + p * (high - low) for p in places]


def heat_map(results: Results, across: Parameter, up: Parameter) -> Figure:
    """The best score in each cell of two ranges, and the trials where they lie."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D

    rows = [row for row in results.rows if across.name in row.values and up.name in row.values]
    scored = [row for row in results.ranked if row in rows]
    tried = {p.name: [row.values[p.name] for row in rows] for p in (across, up)}
    grid = [edges(p, tried[p.name], results.settings.sampler) for p in (across, up)]
    best = np.full((len(grid[1]) - 1, len(grid[0]) - 1), np.nan)
    for row in reversed(scored):  # the best last
        x, y = (
            min(max(int(np.searchsorted(g, row.values[p.name] * (1 + 1e-12), "right")) - 1, 0), len(g) - 2)
            for p, g in zip((across, up), grid, strict=True)
        )
        best[y, x] = row.score
    figure = new_figure(8.0, 6.0)
    axes = figure.subplots()
    norm, color_map = color_norm(results), _color_map(results)
    axes.set_facecolor("0.93")
    axes.pcolormesh(*grid, np.ma.masked_invalid(best), norm=norm, cmap=color_map, alpha=0.85, edgecolors="white", lw=1)
    marks = [("*", "orange", "black", "the best"), ("o", "darkcyan", "white", "finished")]
    for state, marker, face in ((RUNNING, "o", "none"), (PRUNED, "s", "lightgray"), (FAILED, "X", "crimson")):
        places = [(row.values[across.name], row.values[up.name]) for row in rows if row.state == state]
        if places:
            axes.scatter(*zip(*places, strict=True), marker=marker, s=50, fc=face, ec="black", lw=0.8, clip_on=False)
            marks.append((marker, face, "black", state))
    for row in reversed(scored):
        x, y, face = row.values[across.name], row.values[up.name], color_map(norm(row.score))
        axes.scatter(x, y, color=face, s=60, edgecolors="white", lw=1.4, clip_on=False)
    axes.scatter(x, y, marker="*", s=330, color="orange", edgecolors="black", clip_on=False)  # of the best, drawn last
    for p, g, axis, scale in (
        (across, grid[0], axes.xaxis, axes.set_xscale),
        (up, grid[1], axes.yaxis, axes.set_yscale),
    ):
        if p.log:
            scale("log")
        values = range_ticks(results, p, g[0], g[-1], ends=False)
        axis.set_minor_locator(_none())
        axis.set_ticks(values, [show(round(v) if p.is_integer else float(v)) for v in values])
    axes.set_xlim(grid[0][0], grid[0][-1])
    axes.set_ylim(grid[1][0], grid[1][-1])
    axes.set_xlabel(wrap(results.names[across.name], 60))
    axes.set_ylabel(wrap(results.names[up.name], 40))
    clipped = len(results.ranked) >= 10
    extend = "neither" if not clipped else "max" if results.sign == 1 else "min"
    bar = figure.colorbar(ScalarMappable(norm, color_map), ax=axes, label=results.objective, extend=extend)
    values = ticks(norm.vmin, norm.vmax, is_log([norm.vmin, norm.vmax]), False)
    bar.minorticks_off()
    bar.set_ticks(values, labels=apart(values))
    handles = [
        Line2D([], [], ls="", marker=marker, color=face, markeredgecolor=edge, ms=9, label=label)
        for marker, face, edge, label in marks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    title = f"Color of a cell: the best {results.objective} in it; gray: nothing finished there"
    axes.set_title(fill(title, 75), fontsize=11)
    return figure


def _none() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
