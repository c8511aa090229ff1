"""What the network does with one hint: its hue goes round the color wheel, and nothing else changes."""

from __future__ import annotations

import colorsys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from project.callbacks.pictures import can_show, grid, hint_giver, middle, sample_path, to_image, zoom_for
from project.data.batch import Batch
from project.data.pairs import Point
from workbench.loggers import log_image
from workbench.sharding import gather_weights, is_sharded

STEPS = 12
SATURATION, BRIGHTNESS = 0.8, 0.9
SWATCH = 24


class HintSweep(Callback):
    """Saves ``samples/hint_sweep.png``: the first validation image with one hint, in twelve hues round the wheel.

    The hint lies at a flat place near the middle, the same each time. Without hints in ``data.pairs`` it does nothing.

    Args:
        every_n_validations: Draw at every n-th validation; 0 switches the callback off.
        size: Side of the center crop that is colored, in pixels.
    """

    def __init__(self, every_n_validations: int = 1, size: int = 128) -> None:
        self.every_n_validations, self.size = every_n_validations, size
        self._validations = 0
        self._sweep: tuple[Tensor, Tensor] | None = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        pairs = hint_giver(trainer)
        if (
            pairs is None
            or self._sweep is not None
            or not self._due()
            or trainer.sanity_checking
            or not (trainer.is_global_zero or is_sharded(trainer))
            or not can_show(pl_module, batch)
        ):
            return
        window = (slice(1), slice(None), *middle(batch.target, self.size))
        condition = batch.input[window][:, : batch.input.shape[1] - pairs.hints.channels]
        height, width = condition.shape[-2:]
        x, y = flat_spot(batch.target[window][0])
        planes = torch.cat([pairs.hints.from_points(height, width, [Point(x, y, color)]) for color in hues()])
        planes = planes.to(condition)
        with torch.no_grad(), gather_weights(trainer):
            colored = pl_module.restore(torch.cat([condition.expand(STEPS, -1, -1, -1), planes], dim=1))
            hint = pairs.hints.preview(planes[:1], condition)[0]
        self._sweep = hint.float().cpu(), colored.float().cpu()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or hint_giver(trainer) is None:
            return
        sweep, self._sweep = self._sweep, None
        path = sample_path(trainer, "hint_sweep.png") if self._due() else None
        self._validations += 1
        if path is None or sweep is None:
            return
        draw(*sweep).save(path)
        log_image(trainer, "hint_sweep", path)

    def _due(self) -> bool:
        return self.every_n_validations > 0 and self._validations % self.every_n_validations == 0


def hues() -> list[tuple[float, float, float]]:
    """The colors of the sweep, RGB in [0, 1]: hues at even distances, starting with red."""
    return [colorsys.hsv_to_rgb(step / STEPS, SATURATION, BRIGHTNESS) for step in range(STEPS)]


def flat_spot(picture: Tensor) -> tuple[int, int]:
    """Where a person would put the one hint: in a flat part, neither dark nor white, rather in the middle.

    Args:
        image: (3, H, W) in [0, 1].

    Returns:
        x and y in pixels.
    """
    height, width = picture.shape[-2:]
    side = min(height, width, max(3, min(height, width) // 8))
    pixels = picture.float().cpu()[None]
    mean = avg_pool2d(pixels, side, stride=1)
    spread = (avg_pool2d(pixels.square(), side, stride=1) - mean.square()).clamp_min(0).sqrt()
    rows, columns = mean.shape[-2:]
    y = torch.linspace(-1, 1, rows) if rows > 1 else torch.zeros(1)
    x = torch.linspace(-1, 1, columns) if columns > 1 else torch.zeros(1)
    away = (y[:, None].square() + x.square()).sqrt()
    cost = spread.mean(dim=(0, 1)) + 0.2 * (mean.mean(dim=(0, 1)) - 0.6).abs() + 0.1 * away
    row, column = divmod(int(cost.argmin()), columns)
    return column + side // 2, row + side // 2


def draw(hint: Tensor, colored: Tensor) -> Image.Image:
    """The sweep as one image: swatches of the hint's colors, and under each what the network makes of it.

    Args:
        hint: (3, H, W) in [0, 1], the condition with the hint in it.
        colored: (12, 3, H, W) in [0, 1], the outputs.
    """
    zoom = zoom_for(*colored.shape[-2:])
    outputs = [to_image(picture, zoom) for picture in colored]
    size = (outputs[0].width, SWATCH)
    swatches = [Image.new("RGB", size, tuple(round(255 * value) for value in color)) for color in hues()]
    headings = ["the hint's hue", *(f"{360 * step // STEPS}°" for step in range(STEPS))]
    rows = [[Image.new("RGB", size, "white"), *swatches], [to_image(hint, zoom), *outputs]]
    captions = [[""] * len(headings), ["the hint at 0°", *[""] * STEPS]]
    return grid(rows, headings, captions)
