"""Supervised image-to-image learning: what is optimized, logged and predicted."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from project.data.batch import Batch
from project.models.base import ImageToImageModule
from project.models.finetune import FineTuning
from project.models.metrics import PSNR, SSIM
from project.models.schedules import configure_optimizer
from project.networks.normalize import set_normalization
from workbench.checkpoint import save_plain_hyperparameters


class ImageRestorer(ImageToImageModule):
    """Trains a network to turn input images into their targets.

    Logs ``train/loss`` (the data loss), with penalties ``train/l1_penalty``, ``train/l2_penalty``, ``train/total``;
    ``val/loss`` and for each metric ``val/NAME`` and ``val/NAME_baseline`` (the do-nothing output); likewise ``test/``.

    Args:
        network: Takes and gives images in [0, 1], (B, C, H, W); only its parameters are trained.
        loss: Called with output and target, any of torch.nn or project.models; null for L1.
        optimizer: Any of torch.optim.
        scheduler: Any of torch.optim.lr_scheduler or project.models.WarmupCosine; null for a constant learning rate.
            ReduceLROnPlateau watches val/loss.
        schedule_every: Step the scheduler after every step or epoch; auto: as it is meant.
        l1: Weight of the penalty sum |w|, on kernels only; 0 for none.
        l2: Weight of the penalty sum w^2 / 2, on kernels only; 0 for none.
        metrics: Name and torchmetrics metric of each; null for psnr and ssim.
        channels_last: Keep tensors in channels_last order, which is faster for convolutions.
        init_from: Checkpoint whose weights, as far as they fit, training starts from; to resume a run use ckpt_path.
        finetune: What of the network's encoder is frozen, until when, and how fast it trains.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        schedule_every: str = "auto",
        l1: float = 0.0,
        l2: float = 0.0,
        metrics: dict[str, Metric] | None = None,
        channels_last: bool = True,
        init_from: str | None = None,
        finetune: FineTuning = FineTuning(),  # noqa: B008 it is frozen
    ) -> None:
        scored = {"psnr": PSNR(), "ssim": SSIM()} if metrics is None else metrics
        super().__init__(scored, schedule_every, channels_last, init_from, finetune)
        save_plain_hyperparameters(self, locals())
        self.network = network.to(memory_format=self.memory_format)
        self.loss = nn.L1Loss() if loss is None else loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.l1 = l1
        self.l2 = l2
        self.apply_freezing()

    def networks(self) -> dict[str, nn.Module]:
        return {"network": self.network}

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images around [0, 1] -> (B, C', H, W) around [0, 1], not clipped."""
        return self.network(self.to_memory_format(x))

    def predict_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        output = self(batch.input).float()
        return output, self.loss(output, batch.target)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self(batch.input), batch.target)
        self.log("train/loss", loss)  # prog_bar=True would wait for the device at every step
        return loss if self.l1 == 0 and self.l2 == 0 else self._penalize(loss)

    def _penalize(self, loss: Tensor) -> Tensor:
        # Kernels and matrices; not biases, norm gains or PReLU slopes, whose size is not complexity.
        weights = [p for p in self.network.parameters() if p.requires_grad and p.ndim >= 2]
        for name, weight, measure in (("l1", self.l1, torch.abs), ("l2", self.l2 / 2, torch.square)):
            if weight > 0:
                penalty = weight * torch.stack([measure(w).sum() for w in weights]).sum()
                self.log(f"train/{name}_penalty", penalty)
                loss = loss + penalty
        self.log("train/total", loss)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_optimizer(self, self.network, self.make_optimizer, self.make_scheduler, self.finetune)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        statistics = getattr(self.trainer.datamodule, "normalization", None) if stage == "fit" else None
        if statistics is not None:
            input, target = statistics["input"], statistics["target"]
            self.check_channels(("network", "in", len(input[0])), ("network", "out", len(target[0])))
            set_normalization(self.network, input, target)

    def prepare_trial(self, network: str) -> None:
        """For the command check: nothing but the data loss."""
        self.l1, self.l2, self.init_from = 0.0, 0.0, None
