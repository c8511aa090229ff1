"""Images instead of logs: input, output and target of the same few images after every validation."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from project.callbacks.grid import draw_histogram, grid, has_images, hint_pairs, run_file, run_model, to_image, zoom_for
from project.data.batch import Batch
from project.data.images import center_window
from project.networks.normalize import input_normalization
from workbench.distributed import gather_weights, is_sharded
from workbench.loggers import log_image

GAIN = 4  # an error map shows abs(output - target) times this


class Samples(Callback):
    """Saves a grid of samples as ``samples/step_NNNNNN.png`` and the newest as ``samples/latest.png``, which in the end
    is that of the best checkpoint; and once ``samples/input_histogram.png``.

    Restoration shows input, output, target and the error; colorization shows condition, hints, output and target. The
    histogram is that of the first training batch, before and after normalization.

    Args:
        count: how many images; the first of the validation split, always the same. 0 switches the callback off.
        size: side of the center crop that is shown, in pixels of the image itself: nothing is blurred by rescaling.
    """

    def __init__(self, count: int = 4, size: int = 192) -> None:
        self.count, self.size = count, size
        self._rows: list[tuple[dict[str, Tensor], Tensor, Tensor, Tensor]] = []  # views, baseline, output, target

    @property
    def enabled(self) -> bool:
        return self.count > 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.count < 1 or trainer.global_step > 0 or batch_idx > 0:
            return
        path = run_file(trainer, "samples/input_histogram.png")
        if path is None or getattr(getattr(batch, "input", None), "ndim", 0) != 4:
            return
        pairs = hint_pairs(trainer.datamodule)
        channels = batch.input.shape[1] - (pairs.hints.channels if pairs else 0)
        draw_histogram(batch.input, input_normalization(pl_module), channels, path)
        log_image(trainer, "input/histogram", path)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        missing = self.count - len(self._rows)
        if missing < 1 or trainer.sanity_checking or not (trainer.is_global_zero or is_sharded(trainer)):
            return
        if not has_images(batch):
            return
        parts = (getattr(batch, name, None) for name in Batch._fields)
        batch = Batch(*(part[:missing] if isinstance(part, Tensor) else None for part in parts))
        with gather_weights(trainer):
            output = run_model(pl_module, batch.input)
        if output is None:
            return
        window = (..., *center_window(*output.shape[-2:], self.size))
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
        rows, self._rows = self._rows, []
        path = None if trainer.sanity_checking or not self.count else run_file(trainer, "samples/latest.png")
        if path is None or not rows:
            return
        image = draw_samples(rows)
        image.save(path)
        if trainer.state.fn == "fit":  # else the checkpoint may be of another step than the trainer's
            image.save(path.with_name(f"step_{trainer.global_step:06d}.png"))
        log_image(trainer, "samples", path)


def draw_samples(rows: list[tuple[dict[str, Tensor], Tensor, Tensor, Tensor]]) -> Image.Image:
    """A row of images for each of (views of the input, baseline, output, target), with the PSNR before and after."""
    given = list(rows[0][0])
    restoring = given == ["input"]  # a color that differs from the target may be as good: no error map
    images, captions = [], []
    for views, baseline, output, target in rows:
        shown = [*views.values(), output, target, *[(output - target).abs() * GAIN] * restoring]
        zoom = 1 if restoring else zoom_for(*target.shape[-2:])
        images.append([to_image(image, zoom) for image in shown])
        before, after = (
            f"{float(peak_signal_noise_ratio(image, target, data_range=1.0)):.2f} dB" for image in (baseline, output)
        )
        captions.append([before, *[""] * (len(given) - 1), after])
    return grid(images, [*given, "output", "target", *[f"|error| x {GAIN:g}"] * restoring], captions)
