"""What a learning-rate range test measured, the rate that it suggests, and its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from workbench.tune.apply import yaml_number

WINDOW = 0.04  # standard deviation of the smoothing, as a share of the planned steps
CLEAR = 3.5  # standard errors that the loss has to fall by: 3 % of flat, noisy curves still seem to fall
LEAST = 0.02  # and the share of its first value
MOST = 0.8  # of the whole fall, which makes a minimum the minimum
FEWEST = 10  # steps that can be judged


@dataclass(frozen=True)
class Curve:
    """The loss over a learning rate that grew exponentially from step to step."""

    network: str
    configured: float  # the learning rate of the configuration
    planned: Sequence[float]  # the rates of all steps
    losses: Sequence[float]  # of the steps that were taken, all finite
    ended: str = ""  # why it stopped before the last rate, if it did

    @property
    def rates(self) -> Sequence[float]:
        return self.planned[: len(self.losses)]

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The losses under a Gaussian of `WINDOW`: unlike a running mean it looks ahead as well, so that nothing is
        shifted to higher rates. Losses above the first ones count as those, or an explosion would hide what the loss
        did right before it."""
        losses = np.asarray(self.losses, dtype=float)
        ceiling = losses[:FEWEST].max()
        return self._window @ np.minimum(losses, ceiling)

    @cached_property
    def _window(self) -> np.ndarray:
        """The weights of all steps, for each smoothed one."""
        steps = np.arange(len(self.losses))
        width = max(WINDOW * len(self.planned), 1.0)
        weights = np.exp(-0.5 * ((steps[:, None] - steps) / width) ** 2)
        return weights / weights.sum(axis=1, keepdims=True)

    @cached_property
    def minimum(self) -> int:
        """The step of the first minimum of the smoothed loss that has most of its whole fall: a lower one behind it,
        at rates where the loss jumps about, is chance."""
        fall = np.mean(self.losses[:FEWEST]) - self.smoothed
        lowest = int(fall.argmax())
        turns = np.append(np.diff(fall) <= 0, True) & (fall >= MOST * fall[lowest])
        return int(turns.argmax()) if fall[lowest] > 0 else lowest

    @cached_property
    def steepest(self) -> int:
        """The step at which the smoothed loss falls fastest, over the logarithm of the rate."""
        return int(np.gradient(self.smoothed)[: self.minimum + 1].argmin())

    @property
    def candidates(self) -> dict[str, float]:
        """The two usual suggestions, by what they are."""
        return {
            "steepest descent of the smoothed loss": self.rates[self.steepest],
            "rate of its minimum / 10": self.rates[self.minimum] / 10,
        }

    @cached_property
    def problem(self) -> str:
        """Why no rate can be suggested; empty where one can."""
        if len(self.losses) < FEWEST:
            return self.ended or f"only {len(self.losses)} steps were taken"
        if self.minimum < FEWEST // 2:
            return "the loss is lowest at the lowest rates: --min looks further down"
        first, lowest = np.mean(self.losses[:FEWEST]), self.smoothed[self.minimum]
        falling = slice(self.minimum + 1)  # by their median, since the others are no noise
        noise = 1.48 * float(np.median(np.abs(np.asarray(self.losses)[falling] - self.smoothed[falling])))
        error = noise * math.sqrt(1 / FEWEST + float(np.square(self._window[self.minimum]).sum()))
        if first - lowest < max(CLEAR * error, LEAST * abs(first)):
            fall = f"from {first:.4g} to {lowest:.4g}, steps differ by {noise:.2g}"
            return f"the loss does not clearly fall at any rate: {fall}; with more --steps it may"
        return ""

    @property
    def suggestion(self) -> float | None:
        """The higher of the two candidates, rounded to two digits; None where there is a `problem`."""
        return None if self.problem else float(f"{self.candidates[self.reason]:.1e}")

    @property
    def reason(self) -> str:
        """Which candidate the suggestion is."""
        return max(self.candidates, key=self.candidates.__getitem__)

    @property
    def still_falling(self) -> bool:
        """Whether the minimum is at the highest rate that was tried, so that a better one may lie above."""
        return not self.ended and self.minimum >= len(self.losses) - 2


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Write the curves as an image, a panel for each optimizer: losses, the candidates, the configured rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(curves), 5), dpi=110, layout="constrained")
    for axis, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        _draw_panel(axis, curve)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_panel(axis: Any, curve: Curve) -> None:
    title = "no suggestion" if curve.problem else f"{yaml_number(curve.suggestion)} is suggested"
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss", title=f"{curve.network}: {title}")
    axis.set_xlim(curve.planned[0], curve.planned[-1])
    axis.grid(alpha=0.3)
    label = f"configured: {yaml_number(curve.configured)}"
    axis.axvline(curve.configured, color="tab:gray", linestyle="--", label=label)
    if curve.losses:
        axis.plot(curve.rates, curve.losses, ".", color="tab:blue", alpha=0.3, label="each step")
        axis.plot(curve.rates, curve.smoothed, color="tab:blue", label="smoothed")
        low, high = curve.smoothed.min(), curve.smoothed[: curve.minimum + 1].max()
        room = max(high - low, 1e-9)  # what it falls by stays visible where it rises far above that
        top = min(max(curve.smoothed.max(), *curve.losses), high + 1.5 * room)
        bottom = max(min(curve.losses), low - room)
        axis.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
    for label, rate in {} if curve.problem else curve.candidates.items():
        place = np.interp(np.log(rate), np.log(curve.rates), curve.smoothed)
        look = {"color": "tab:red", "marker": "o"} if label == curve.reason else {"color": "tab:orange", "marker": "v"}
        axis.plot(rate, place, linestyle="", markersize=9, label=f"{label}: {yaml_number(rate)}", **look)
    axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, frameon=False)
