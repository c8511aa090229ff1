"""Pictures instead of logs: input | output | target | error of the same few validation pictures, every validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics.functional.image import peak_signal_noise_ratio

from project.callbacks.pictures import grid, log_picture, to_image
from project.data.batch import Pair

HEADINGS = ["input", "output", "target"]


class Samples(Callback):
    """Saves a grid of sample pictures as ``samples/step_NNNNNN.png`` and the newest as ``samples/latest.png``,
    which in the end is that of the best checkpoint.

    Args:
        count: How many pictures; the first of the validation split, always the same. 0 switches the callback off.
        size: Side of the centre crop that is shown, in pixels of the picture itself: nothing is rescaled.
        gain: The error map shows ``abs(output - target)`` times this.
        every_n_validations: Draw at every n-th validation; raise it when validations are frequent.
    """

    def __init__(self, count: int = 4, size: int = 192, gain: float = 4.0, every_n_validations: int = 1) -> None:
        self.count, self.size, self.gain, self.every_n_validations = count, size, gain, every_n_validations
        self._validations = 0
        self._rows: list[tuple[torch.Tensor, ...]] = []

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were: a resumed run draws at the ones that were due."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Pair,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        missing = self.count - len(self._rows)
        if (
            missing < 1
            or trainer.sanity_checking
            or not trainer.is_global_zero
            or self._validations % self.every_n_validations
        ):
            return
        with torch.no_grad():
            output = pl_module.restore(batch.input[:missing])
        top, left = (max(0, (side - self.size) // 2) for side in output.shape[-2:])
        window = (..., slice(top, top + self.size), slice(left, left + self.size))
        pictures = (batch.baseline[:missing], output, batch.target[:missing])
        self._rows += list(zip(*(p[window].float().cpu() for p in pictures), strict=True))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        rows, self._rows = self._rows, []
        self._validations += 1
        if not rows or trainer.log_dir is None:
            return
        folder = Path(trainer.log_dir) / "samples"
        folder.mkdir(exist_ok=True)
        picture = self._draw(rows)
        picture.save(folder / "latest.png")
        if trainer.state.fn == "fit":  # else the checkpoint may be of another step than the trainer's
            picture.save(folder / f"step_{trainer.global_step:06d}.png")
        log_picture(trainer, "samples", folder / "latest.png")

    def _draw(self, rows: list[tuple[torch.Tensor, ...]]) -> Any:
        pictures, captions = [], []
        for before, after, target in rows:
            error = (after - target).abs().mul(self.gain)
            pictures.append([to_image(p) for p in (before, after, target, error)])
            decibels = [float(peak_signal_noise_ratio(p, target, data_range=1.0)) for p in (before, after.clamp(0, 1))]
            captions.append([f"{decibels[0]:.2f} dB", f"{decibels[1]:.2f} dB", "", ""])
        return grid(pictures, [*HEADINGS, f"|error| x {self.gain:g}"], captions)
