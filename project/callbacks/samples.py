"""Images instead of logs: input, output and target of the same few images after every validation."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from project.callbacks.grid import (
    draw_histogram,
    grid,
    has_images,
    hint_pairs,
    middle,
    run_model,
    sample_path,
    to_image,
    zoom_for,
)
from project.data.batch import Batch
from project.networks.normalize import input_normalization
from workbench.loggers import log_image
from workbench.strategies import gather_weights, is_sharded

GAIN = 4
"""An error map shows ``abs(output - target)`` times this."""


class Samples(Callback):
    """Saves a grid of samples as ``samples/step_NNNNNN.png`` and the newest as ``samples/latest.png``, which in the end
    is that of the best checkpoint; and once ``samples/input_histogram.png``.

    Restoration shows input, output, target and the error; colorization shows condition, hints, output and target. The
    histogram is that of the first training batch, before and after normalization.

    Args:
        count: How many images; the first of the validation split, always the same. 0 switches the callback off.
        size: Side of the center crop that is shown, in pixels of the image itself: nothing is blurred by rescaling.
        every_n_validations: Draw at every n-th validation; raise it when validations are frequent.
    """

    def __init__(self, count: int = 4, size: int = 192, every_n_validations: int = 1) -> None:
        self.count, self.size, self.every_n_validations = count, size, every_n_validations
        self._validations = 0
        self._rows: list[tuple[dict[str, Tensor], Tensor, Tensor, Tensor]] = []  # views, baseline, output, target

    @property
    def enabled(self) -> bool:
        return self.count > 0

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were: a resumed run draws at the ones that are due."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = state_dict["validations"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.count < 1 or trainer.global_step > 0 or batch_idx > 0:
            return
        path = sample_path(trainer, "input_histogram.png")
        if path is None or getattr(getattr(batch, "input", None), "ndim", 0) != 4:
            return
        views = {"pixels": batch.input}
        normalize = input_normalization(pl_module)
        if normalize is not None and normalize.mean.shape[1] == batch.input.shape[1]:
            with torch.no_grad():
                views["normalized"] = normalize(batch.input)
        pairs = hint_pairs(trainer.datamodule)
        draw_histogram(views, pairs.hints.channels if pairs else 0, path)
        log_image(trainer, "input/histogram", path)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        missing = self.count - len(self._rows)
        due = not trainer.sanity_checking and self._validations % self.every_n_validations == 0
        if missing < 1 or not due or not has_images(batch) or not (trainer.is_global_zero or is_sharded(trainer)):
            return
        parts = (getattr(batch, name, None) for name in Batch._fields)
        batch = Batch(*(part[:missing] if isinstance(part, Tensor) else None for part in parts))
        with gather_weights(trainer):
            output = run_model(pl_module, batch.input)
        if output is None:
            return
        window = (..., *middle(output, self.size))
        # The views of the crop, not a crop of the views: a palette's strip lies along a side.
        cropped = {
            name: part[window]
            for name in ("input", "target", "baseline")
            if (part := getattr(batch, name)).shape[-2:] == output.shape[-2:]
        }
        batch = batch._replace(**cropped)
        make_preview = getattr(getattr(trainer.datamodule, "pairs", None), "preview", None)
        views = make_preview(batch) if make_preview else {"input": batch.baseline}
        columns = [part.float().cpu() for part in (*views.values(), batch.baseline, output[window], batch.target)]
        for *shown, baseline, out, target in zip(*columns, strict=True):
            self._rows.append((dict(zip(views, shown, strict=True)), baseline, out, target))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        rows, self._rows = self._rows, []
        due = self.count > 0 and self._validations % self.every_n_validations == 0
        self._validations += 1
        path = sample_path(trainer, "latest.png") if due else None
        if path is None or not rows:
            return
        image = self._draw(rows)
        image.save(path)
        if trainer.state.fn == "fit":  # else the checkpoint may be of another step than the trainer's
            image.save(path.with_name(f"step_{trainer.global_step:06d}.png"))
        log_image(trainer, "samples", path)

    def _draw(self, rows: list[tuple[dict[str, Tensor], Tensor, Tensor, Tensor]]) -> Any:
        given = list(rows[0][0])
        restoring = given == ["input"]  # a color that differs from the target may be as good: no error map
        last = ["output", "target", *[f"|error| x {GAIN:g}"] * restoring]
        images, captions = [], []
        for views, baseline, output, target in rows:
            shown = [*views.values(), output, target, *[(output - target).abs() * GAIN] * restoring]
            zoom = 1 if restoring else zoom_for(*target.shape[-2:])
            images.append([to_image(image, zoom) for image in shown])
            before, after = (
                f"{float(peak_signal_noise_ratio(image, target, data_range=1.0)):.2f} dB"
                for image in (baseline, output)
            )
            captions.append([before, *[""] * (len(given) - 1), after, *[""] * (len(last) - 1)])
        return grid(images, [*given, *last], captions)
