"""Semantic segmentation with the project's UNet: cross entropy + Dice, IoU next to the majority-class baseline."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from project.networks import UNet


class Segmenter(LightningModule):
    """Predicts a class for each pixel.

    Logs ``train/loss``; ``val/loss``, ``val/iou`` (mean over classes) and ``val/iou_baseline``, that of predicting the
    most frequent class of the training pixels everywhere; likewise ``test/``.

    Args:
        classes: Number of classes; masks hold 0 to classes - 1.
        widths: Channels of each level of the UNet.
        lr: Learning rate of Adam.
    """

    def __init__(self, classes: int = 3, widths: tuple[int, ...] = (16, 32, 64), lr: float = 2e-3) -> None:
        super().__init__()
        self.classes, self.lr = classes, lr
        self.network = UNet(3, classes, widths=list(widths), norm="group")
        self.register_buffer("pixels", torch.zeros(classes, dtype=torch.long))  # of each class, seen in training
        self.scores = nn.ModuleDict(
            {
                f"{split}_{name}": MulticlassJaccardIndex(classes)
                for split in ("val", "test")
                for name in ("iou", "iou_baseline")
            }
        )

    def setup(self, stage: str) -> None:
        """Give the network the mean and std of the training images; a checkpoint brings its own."""
        if stage == "fit" and self.trainer.datamodule is not None:
            self.network.normalize_input.set(*self.trainer.datamodule.normalization["input"])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> logits (B, classes, H, W)."""
        return self.network(x)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy + soft Dice (Milletari et al. 2016); target int64 (B, H, W)."""
        probability = logits.softmax(dim=1)
        truth = F.one_hot(target, self.classes).movedim(-1, 1)
        overlap = (probability * truth).sum(dim=(0, 2, 3))
        total = (probability + truth).sum(dim=(0, 2, 3))
        return F.cross_entropy(logits, target) + 1 - ((2 * overlap + 1) / (total + 1)).mean()

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        self.pixels += (batch[1].flatten() == torch.arange(self.classes, device=self.device)[:, None]).sum(dim=1)
        loss = self.loss(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, batch: tuple[Tensor, ...], split: str) -> None:
        logits, target = self(batch[0]), batch[1]
        majority = self.pixels.argmax().expand_as(target)
        for name, prediction in (("iou", logits.argmax(dim=1)), ("iou_baseline", majority)):
            self.scores[f"{split}_{name}"].update(prediction, target)
            self.log(f"{split}/{name}", self.scores[f"{split}_{name}"])
        self.log(f"{split}/loss", self.loss(logits, target), sync_dist=True, batch_size=len(target))

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)
