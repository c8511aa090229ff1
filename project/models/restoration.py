"""Supervised image-to-image learning: what is optimized, logged and predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from project.data.batch import Batch
from project.models.base import ImageToImageModule, normalizations
from project.models.finetuning import FineTuning, parameter_groups
from project.models.fitting import channels_of
from project.models.metrics import PSNR, SSIM
from project.models.optimization import configure_scheduler, make_optimizer
from project.models.regularization import l1_penalty, l2_penalty, penalised_weights
from project.models.weights import load_matching
from workbench.errors import UserError
from workbench.hyperparameters import save_plain_hyperparameters


class ImageRestorer(ImageToImageModule):
    """Teach a network to turn input images into their targets.

    Logs ``train/loss`` (the data loss), with penalties ``train/l1_penalty``, ``train/l2_penalty``, ``train/total``;
    ``val/loss`` and for each metric ``val/NAME`` and ``val/NAME_baseline`` (the do-nothing answer); likewise ``test/``.

    Args:
        network: Takes and gives images in [0, 1], (B, C, H, W); only its parameters are trained.
        loss: Called with output and target, any of torch.nn or project.models; null for L1.
        optimizer: Any of torch.optim.
        scheduler: Any of torch.optim.lr_scheduler or project.models.WarmupCosine; null for a constant learning rate.
        schedule_every: Step the scheduler after every step or epoch; auto: as it is meant (a plateau: validation).
        monitor: Logged value that ReduceLROnPlateau watches.
        l1: Weight of the penalty sum |w|, on kernels only; 0 for none.
        l2: Weight of the penalty sum w^2 / 2, on kernels only; 0 for none.
        metrics: Name and torchmetrics metric of each; null for psnr and ssim.
        compile: Compile the network for training with torch.compile; a C++ compiler is needed.
        channels_last: Keep tensors in channels_last order, which is faster for convolutions.
        init_from: Checkpoint whose weights, as far as they fit, training starts from; to resume a run use ckpt_path.
        finetune: What of the network's encoder is frozen, until when, and how fast it learns.

    Raises:
        UserError: For an unknown ``schedule_every``, or a negative penalty.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        schedule_every: str = "auto",
        monitor: str = "val/psnr",
        l1: float = 0.0,
        l2: float = 0.0,
        metrics: dict[str, Metric] | None = None,
        compile: bool = False,
        channels_last: bool = True,
        init_from: str | None = None,
        finetune: FineTuning = FineTuning(),  # noqa: B008 it is frozen
    ) -> None:
        super().__init__(
            default_metrics() if metrics is None else metrics,
            schedule_every,
            monitor,
            channels_last,
            init_from,
            finetune,
        )
        save_plain_hyperparameters(self, locals())
        if l1 < 0 or l2 < 0:
            raise UserError(f"model.l1 and model.l2 must not be negative; they are {l1} and {l2}.")
        self.network = network.to(memory_format=self.memory_format)
        self.loss = nn.L1Loss() if loss is None else loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.l1 = l1
        self.l2 = l2
        self.compile_network = compile
        self._train_network: Callable[[Tensor], Tensor] | None = None
        self.apply_freezing()

    def setup(self, stage: str) -> None:
        """Before training: take the data's statistics, and compile."""
        super().setup(stage)
        if stage != "fit":
            return
        self._take_normalization(getattr(self.trainer.datamodule, "normalization", None))
        if self.compile_network:
            # The method, not the module, which would become a submodule and put its names into the checkpoint.
            self._train_network = torch.compile(self.network).__call__

    def _take_normalization(self, statistics: dict[str, tuple[list[float], list[float]]] | None) -> None:
        """Fill every Normalize of the network: ``input`` those called normalize_input, ``target`` normalize_output."""
        if statistics is None:
            return
        wanted = {"normalize_input": statistics["input"], "normalize_output": statistics["target"]}
        for side, role in zip(("in", "out"), wanted, strict=True):
            _check_channels(role, channels_of(self.network, side), len(wanted[role][0]))
        for name, role, part in normalizations(self.network):
            _check_channels(name, part.mean.numel(), len(wanted[role][0]))
            part.set(*wanted[role])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images around [0, 1] -> (B, C', H, W) around [0, 1], not clipped."""
        return self.network(self.to_memory_format(x))

    def predict_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The network's answer to a batch, and its data loss."""
        output = self(batch.input).float()
        return output, self.loss(output, batch.target)

    def prepare_trial(self, network: str) -> None:
        """For the command check: nothing but the data loss."""
        self.l1 = self.l2 = 0.0
        self.compile_network, self.init_from = False, None

    def load_weights(self, path: str) -> None:
        """Take the network's weights from a checkpoint, as far as they fit."""
        load_matching(self.network, path)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch -> the scalar to descend."""
        x = self.to_memory_format(batch.input)
        output = self.network(x) if self._train_network is None else self._compiled(x)
        loss = self.loss(output, batch.target)
        self.log("train/loss", loss)  # prog_bar=True would wait for the device at every step
        return loss if self.l1 == 0 and self.l2 == 0 else loss + self._penalty(loss)

    def _penalty(self, loss: Tensor) -> Tensor:
        weights = penalised_weights(self.network)
        penalty = loss.new_zeros(())
        for name, weight, measure in (("l1", self.l1, l1_penalty), ("l2", self.l2, l2_penalty)):
            if weight > 0:
                part = weight * measure(weights)
                self.log(f"train/{name}_penalty", part)
                penalty = penalty + part
        self.log("train/total", loss + penalty)
        return penalty

    def _compiled(self, x: Tensor) -> Tensor:
        try:
            return self._train_network(x)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
            raise UserError(
                f"torch.compile failed: {reason[:300]}\n"
                "It needs a working C++ compiler (and Triton on a GPU). Go on without it: --model.compile false"
            ) from error

    def configure_optimizers(self) -> Any:
        """The optimizer over the network's trainable parameters, and its scheduler."""
        optimizer = make_optimizer("optimizer", self.make_optimizer, parameter_groups(self.network, self.finetune))
        if self.make_scheduler is None:
            return optimizer
        scheduler = configure_scheduler(
            self.make_scheduler, optimizer, self.trainer, self.schedule_every, self.monitor, self.higher_is_better()
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def default_metrics() -> dict[str, Metric]:
    """What a restored image is scored by where nothing else is said."""
    return {"psnr": PSNR(), "ssim": SSIM()}


def _check_channels(name: str, takes: int | None, given: int) -> None:
    if takes in (None, given):
        return
    key, what = ("in_channels", "input") if name.endswith("input") else ("out_channels", "target")
    raise UserError(
        f"The data's {what} images have {given} channels, but the network is made for {takes}.\n"
        f"Set {key}: {given} in the network's init_args, or change data.channels (1 gray, 3 color).\n"
        "A noise map adds one channel to the input."
    )
