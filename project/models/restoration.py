"""Supervised image-to-image learning: what is optimised, logged and predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from project.data.batch import Pair
from project.errors import UserError
from project.models.hyperparameters import save_plain_hyperparameters
from project.models.metrics import PSNR, SSIM, Scores
from project.models.optimization import EVERY, build, configure_scheduler, step_plateaus
from project.models.regularization import l1_penalty, l2_penalty, penalised_weights
from project.models.weights import load_matching
from project.networks.choices import choose
from project.networks.normalize import Normalize


class ImageRestorer(LightningModule):
    """Teach a network to turn input pictures into their targets.

    Logs ``train/loss`` (the data loss), with penalties ``train/l1_penalty``, ``train/l2_penalty``, ``train/total``;
    ``val/loss`` and for each metric ``val/NAME`` and ``val/NAME_baseline`` (the do-nothing answer); likewise ``test/``.

    Args:
        network: Takes and gives pictures in [0, 1], (B, C, H, W); only its parameters are trained.
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
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self, locals())
        if l1 < 0 or l2 < 0:
            raise UserError(f"model.l1 and model.l2 must not be negative; they are {l1} and {l2}.")
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format)
        self.loss = nn.L1Loss() if loss is None else loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.schedule_every = choose("model.schedule_every", schedule_every, EVERY)
        self.monitor = monitor
        self.l1 = l1
        self.l2 = l2
        self.compile_network = compile
        self.init_from = init_from
        metrics = {"psnr": PSNR(), "ssim": SSIM()} if metrics is None else metrics
        self.scores = nn.ModuleDict({stage: Scores(metrics) for stage in ("val", "test")})
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})
        self._train_network: Callable[[Tensor], Tensor] | None = None

    def setup(self, stage: str) -> None:
        """Before training: take the data's statistics, and compile."""
        if stage != "fit":
            return
        self._take_normalization(getattr(self.trainer.datamodule, "normalization", None))
        if self.compile_network:
            # The method, not the module, which would become a submodule and put its names into the checkpoint.
            self._train_network = torch.compile(self.network).__call__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Weights that come from a checkpoint stay: a resumed run does not start over from ``init_from``."""
        self.init_from = None

    def on_fit_start(self) -> None:
        """Take the weights to start from, once; by now a resumed run has loaded its own."""
        if self.init_from is not None:
            load_matching(self.network, self.init_from)
            self.init_from = None

    def _take_normalization(self, statistics: dict[str, tuple[list[float], list[float]]] | None) -> None:
        """Fill every Normalize of the network: ``input`` those called normalize_input, ``target`` normalize_output."""
        if statistics is None:
            return
        wanted = {"normalize_input": statistics["input"], "normalize_output": statistics["target"]}
        for name, part in self.network.named_modules():
            role = name.rpartition(".")[2]
            if isinstance(part, Normalize) and role in wanted:
                _check_channels(name, part.mean.numel(), len(wanted[role][0]))
                part.set(*wanted[role])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) pictures around [0, 1] -> (B, C', H, W) around [0, 1], not clipped."""
        return self.network(x.contiguous(memory_format=self.memory_format))

    def restore(self, image: Tensor) -> Tensor:
        """(B, C, H, W) float pictures around [0, 1] -> (B, C', H, W) in [0, 1], without gradients."""
        with torch.inference_mode():
            return self(image).float().clamp(0, 1)

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        """One batch -> the scalar to descend."""
        x = batch.input.contiguous(memory_format=self.memory_format)
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

    def validation_step(self, batch: Pair, batch_idx: int) -> None:
        """Count the batch in the validation scores."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Pair, batch_idx: int) -> None:
        """Count the batch in the test scores."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Pair, stage: str) -> None:
        output = self(batch.input).float()
        self.losses[stage].update(self.loss(output, batch.target), weight=len(output))
        self.scores[stage].update(output, batch.target, batch.baseline)

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores, and let a scheduler that waits for them know."""
        scores = self._log_scores("val")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            step_plateaus(self.trainer, scores)

    def on_test_epoch_end(self) -> None:
        """Log the test scores."""
        self._log_scores("test")

    def _log_scores(self, stage: str) -> dict[str, Tensor]:
        values = {"loss": self.losses[stage].compute(), **self.scores[stage].compute()}
        self.losses[stage].reset()
        scores = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(scores)  # the metrics have gathered from all ranks: every rank logs the same value
        return scores

    def predict_step(self, batch: Pair | Tensor, batch_idx: int = 0) -> Tensor:
        """A batch, or its input pictures alone -> restored pictures, (B, C', H, W) in [0, 1]."""
        return self.restore(batch.input if isinstance(batch, Pair) else batch)

    def configure_optimizers(self) -> Any:
        """The optimiser over the network's trainable parameters, and its scheduler."""
        optimizer = build("optimizer", self.make_optimizer, [p for p in self.network.parameters() if p.requires_grad])
        if self.make_scheduler is None:
            return optimizer
        scheduler = configure_scheduler(
            self.make_scheduler, optimizer, self.trainer, self.schedule_every, self.monitor, self._higher_is_better()
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _higher_is_better(self) -> bool:
        """Whether the monitored value is: as its metric says, and a loss is not."""
        metric = self.scores["val"].answer
        name = self.monitor.rpartition("/")[2]
        return bool(metric[name].higher_is_better) if name in metric else False


def _check_channels(name: str, takes: int, given: int) -> None:
    if takes == given:
        return
    key, what = ("in_channels", "input") if name.endswith("input") else ("out_channels", "target")
    raise UserError(
        f"The data's {what} pictures have {given} channels, but the network is made for {takes}.\n"
        f"Set {key}: {given} in the network's init_args, or change data.channels (1 grey, 3 colour).\n"
        "A noise map adds one channel to the input."
    )
