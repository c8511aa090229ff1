"""The race between generator and discriminator: how real the discriminator takes real and made images to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from project.callbacks.pictures import new_figure, sample_path
from workbench.lightning_private import was_updated
from workbench.loggers import log_image

NAMES = ("score_real", "score_fake")


class ScoreCurves(Callback):
    """Saves ``samples/scores.png``: the discriminator's mean scores of real and made training images over the steps.

    Drawn at every validation and at the end, from what a model's ``training_step`` returns as ``score_real`` and
    ``score_fake``, or logs as ``train/score_real`` and ``train/score_fake``; without these it does nothing. Steps in
    which the discriminator rests have no point. Curves that meet: the discriminator cannot tell; far apart: it has won.

    Args:
        points: Most points of a curve: a longer run keeps every second step, then every fourth, and so on. 0 switches
            the callback off.
    """

    def __init__(self, points: int = 2000) -> None:
        self.points = points
        self._curve: list[list[float]] = []  # step, real, fake
        self._stride = 1
        self._steps: list[int] = []
        self._known: list[Tensor | None] = [None, None]
        self._returned = False  # of a model that returns them, what it logs is the same again
        self._pending: list[Tensor] = []  # (N, 2) on the device: reading one would wait for it

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        if self.points < 1 or not trainer.is_global_zero:
            return
        scores = self._fresh(trainer, outputs)
        if scores is None or trainer.global_step % self._stride:
            return
        self._steps.append(trainer.global_step)
        self._pending.append(torch.stack([score.detach() for score in scores])[None])
        if len(self._pending) > 1000:
            self._pending = [torch.cat(self._pending)]

    def _fresh(self, trainer: Trainer, outputs: Any) -> list[Tensor] | None:
        """The scores of this batch; Lightning goes on showing what was logged once."""
        if isinstance(outputs, dict) and all(name in outputs for name in NAMES):
            self._returned = True
            return [outputs[name] for name in NAMES]
        if self._returned:
            return None
        logged = [trainer.callback_metrics.get(f"train/{name}") for name in NAMES]
        fresh = all(one is not None and was_updated(one, known) for one, known in zip(logged, self._known, strict=True))
        self._known = logged
        return logged if fresh else None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._show(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer)

    def _show(self, trainer: Trainer) -> None:
        path = sample_path(trainer, "scores.png") if self.points > 0 else None
        if path is None:
            return
        self._gather()
        if self._curve:
            draw(self._curve, path)
            log_image(trainer, "scores", path)

    def _gather(self) -> None:
        if not self._pending:
            return
        values = torch.cat(self._pending).float().tolist()
        self._curve += [[step, *scores] for step, scores in zip(self._steps, values, strict=True)]
        self._steps, self._pending = [], []
        while len(self._curve) > max(self.points, 2):
            self._curve = self._curve[1::2]
            self._stride *= 2

    def state_dict(self) -> dict[str, Any]:
        """The curves so far, as plain numbers."""
        self._gather()
        return {"curve": [list(point) for point in self._curve], "stride": self._stride}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves of the run that is resumed."""
        self._curve = [list(point) for point in state_dict["curve"]]
        self._stride = state_dict["stride"]
        self._steps, self._pending = [], []


def draw(curve: list[list[float]], path: Path) -> None:
    """Draw both curves, pale as they are and strong as a running mean.

    Args:
        curve: Points of step, score of real and score of made images.
        path: Image file to write.
    """
    import numpy as np

    steps, *scores = np.array(curve, dtype=float).T
    width = max(1, len(steps) // 40)
    window = np.ones(width) / width
    figure = new_figure(7, 3.6)
    axis = figure.subplots()
    for values, color, label in zip(scores, ("tab:blue", "tab:orange"), ("real images", "made images"), strict=True):
        axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        mean = np.convolve(values, window, "valid")
        axis.plot(np.convolve(steps, window, "valid"), mean, ".-" if len(mean) == 1 else "-", color=color, label=label)
    axis.set(title="The discriminator on training batches", xlabel="step", ylabel="mean score (higher: more real)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    figure.savefig(path)
