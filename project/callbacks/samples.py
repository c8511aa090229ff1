"""Images instead of logs: what goes in, what comes out and the truth, of the same few images, every validation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from project.callbacks.pictures import can_show, grid, middle, pair_maker, sample_path, to_image, zoom_for
from project.data.batch import Batch
from workbench.loggers import log_image
from workbench.sharding import gather_weights, is_sharded


class Row(NamedTuple):
    """One sample, on the CPU: float images, (1 or 3, H, W) in [0, 1].

    Attributes:
        views: Heading -> what the network was given, as a person looks at it.
        before: The do-nothing answer, not clipped.
        after: The network's answer.
        truth: What it should be.
    """

    views: dict[str, Tensor]
    before: Tensor
    after: Tensor
    truth: Tensor


class Samples(Callback):
    """Saves a grid of sample images as ``samples/step_NNNNNN.png`` and the newest as ``samples/latest.png``,
    which in the end is that of the best checkpoint.

    Restoring shows input, output, target and the error; coloring shows condition, hints, output and truth.

    Args:
        count: How many images; the first of the validation split, always the same. 0 switches the callback off.
        size: Side of the center crop that is shown, in pixels of the image itself: nothing is blurred by rescaling.
        gain: Where there is an error map, it shows ``abs(output - target)`` times this.
        every_n_validations: Draw at every n-th validation; raise it when validations are frequent.
    """

    def __init__(self, count: int = 4, size: int = 192, gain: float = 4.0, every_n_validations: int = 1) -> None:
        self.count, self.size, self.gain, self.every_n_validations = count, size, gain, every_n_validations
        self._validations = 0
        self._rows: list[Row] = []

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
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        missing = self.count - len(self._rows)
        if (
            missing < 1
            or trainer.sanity_checking
            or not (trainer.is_global_zero or is_sharded(trainer))
            or self._validations % self.every_n_validations
            or not can_show(pl_module, batch)
        ):
            return
        parts = (getattr(batch, name, None) for name in Batch._fields)
        pair = Batch(*(part[:missing] if isinstance(part, Tensor) else None for part in parts))
        with torch.no_grad(), gather_weights(trainer):
            output = pl_module.restore(pair.input)
        window = (..., *middle(output, self.size))
        # The views of the crop, not a crop of the views: a palette's strip lies along a side.
        cut = pair._replace(
            **{
                name: getattr(pair, name)[window]
                for name in ("input", "target", "baseline")
                if getattr(pair, name).shape[-2:] == output.shape[-2:]
            }
        )
        make_views = getattr(pair_maker(trainer), "preview", None)
        views = {"input": cut.baseline} if make_views is None else make_views(cut)
        views = {heading: pictures.float().cpu() for heading, pictures in views.items()}
        shown = (part.float().cpu() for part in (cut.baseline, output[window], cut.target))
        for number, pictures in enumerate(zip(*shown, strict=True)):
            self._rows.append(Row({heading: view[number] for heading, view in views.items()}, *pictures))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        rows, self._rows = self._rows, []
        due = self.count > 0 and self._validations % self.every_n_validations == 0
        self._validations += 1
        path = sample_path(trainer, "latest.png") if due else None
        if path is None or not rows:
            return
        picture = self._draw(rows)
        picture.save(path)
        if trainer.state.fn == "fit":  # else the checkpoint may be of another step than the trainer's
            picture.save(path.with_name(f"step_{trainer.global_step:06d}.png"))
        log_image(trainer, "samples", path)

    def _draw(self, rows: list[Row]) -> Any:
        given = list(rows[0].views)
        # A color that differs from the truth may be as good an answer, and its error says less than the eye.
        restoring = given == ["input"]
        last = ["output", "target", f"|error| x {self.gain:g}"] if restoring else ["output", "truth"]
        pictures, captions = [], []
        for row in rows:
            shown = [*row.views.values(), row.after, row.truth]
            if restoring:
                shown.append((row.after - row.truth).abs().mul(self.gain))
            zoom = 1 if restoring else zoom_for(*row.truth.shape[-2:])
            pictures.append([to_image(picture, zoom) for picture in shown])
            before, after = (_decibels(picture, row.truth) for picture in (row.before, row.after.clamp(0, 1)))
            captions.append([before, *[""] * (len(given) - 1), after, *[""] * (len(last) - 1)])
        return grid(pictures, [*given, *last], captions)


def _decibels(picture: Tensor, truth: Tensor) -> str:
    return f"{float(peak_signal_noise_ratio(picture, truth, data_range=1.0)):.2f} dB"
