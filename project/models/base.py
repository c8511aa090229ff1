"""What all models share: taking the data's statistics, scoring, restoring, starting from other weights."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from project.data.batch import Batch
from project.models.finetuning import FineTuning, freeze
from project.models.metrics import Scores
from project.models.optimization import EVERY, step_plateaus
from project.networks.normalize import Normalize
from workbench.ddp import allow_unfreezing
from workbench.errors import UserError, choose
from workbench.sharding import gather_weights, is_sharded

ROLES = ("normalize_input", "normalize_output")


class ImageToImageModule(LightningModule, ABC):
    """A model that answers images with images, and is scored beside the answer that does nothing.

    Logs ``val/loss`` and for each metric ``val/NAME`` and ``val/NAME_baseline`` (the do-nothing answer); likewise
    ``test/``. A model of your own inherits, and writes ``forward``, ``answer``, ``load_weights``, ``training_step`` and
    ``configure_optimizers``.

    Args:
        metrics: Name -> metric with ``update(output, target)``.
        schedule_every: When schedulers step: step, epoch or auto.
        monitor: Logged value that ReduceLROnPlateau watches.
        channels_last: Keep tensors in channels_last order.
        init_from: Checkpoint to start from, or None.
        finetune: What of the network called ``tuned`` is frozen, and how fast its encoder learns.

    Raises:
        UserError: For an unknown ``schedule_every``.
    """

    tuned = "network"
    """The attribute that holds the network which ``finetune`` is about."""

    def __init__(
        self,
        metrics: dict[str, Metric],
        schedule_every: str,
        monitor: str,
        channels_last: bool,
        init_from: str | None,
        finetune: FineTuning = FineTuning(),  # noqa: B008 it is frozen
    ) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.schedule_every = choose("model.schedule_every", schedule_every, EVERY)
        self.monitor = monitor
        self.init_from = init_from
        self.finetune = finetune
        self.scores = nn.ModuleDict({stage: Scores(metrics) for stage in ("val", "test")})
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) around [0, 1] -> images (B, C', H, W) around [0, 1], not clipped."""

    @abstractmethod
    def predict_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Answer a batch: images (B, C', H, W) around [0, 1], float32, and the loss, a scalar."""

    @abstractmethod
    def load_weights(self, path: str) -> None:
        """Take the weights of a checkpoint, as far as they fit."""

    def to_memory_format(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in the memory order that the networks work in."""
        return x.contiguous(memory_format=self.memory_format)

    # Weights to start from

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Weights that come from a checkpoint stay: a resumed run does not start over from ``init_from``."""
        self.init_from = None

    def on_fit_start(self) -> None:
        """Take the weights to start from, once; by now a resumed run has loaded its own, and processes are joined."""
        self.apply_freezing()
        if self.init_from is not None:
            with gather_weights(self.trainer, write=True):
                self.load_weights(self.init_from)
            self.init_from = None

    # What is frozen

    def apply_freezing(self) -> None:
        """Freeze what ``finetune`` says for this epoch; call it where the networks have been made.

        Raises:
            UserError: The network does not say what its encoder is, or has fewer stages.
        """
        if self.finetune.freezes:
            freeze(getattr(self, self.tuned), self.finetune, self.current_epoch)

    def train(self, mode: bool = True) -> ImageToImageModule:
        """Switch to training or evaluation; what is frozen stays in evaluation, as running statistics would move."""
        super().train(mode)
        if mode:
            self.apply_freezing()
        return self

    def on_train_start(self) -> None:
        """A resumed run may begin in any epoch."""
        self.apply_freezing()

    def on_train_epoch_start(self) -> None:
        """Unfreeze what is due."""
        self.apply_freezing()

    # Scores

    def setup(self, stage: str) -> None:
        """Have metrics that need pretrained weights load them: what is missing is told before the first step.

        Raises:
            UserError: Stages are to be unfrozen, and the strategy cannot have it; the model steps its optimizers itself
                while the weights are shared out.
        """
        if stage == "fit" and not self.automatic_optimization and is_sharded(self.trainer):
            raise UserError(
                f"{type(self).__name__} steps several optimizers itself, which {type(self.trainer.strategy).__name__} "
                "cannot.\nTrain it with configs/trainer/ddp.yaml: --trainer.strategy ddp"
            )
        if stage == "fit" and self.finetune.unfreeze:
            allow_unfreezing(self.trainer)
            # Processes that are joined share the gradients of what wants some at that moment; on_fit_start freezes.
            freeze(getattr(self, self.tuned), self.finetune, None)
        if self.finetune.freezes:
            warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode at the start of training")
        for part in self.scores.modules():
            if isinstance(part, Metric) and hasattr(part, "prepare"):
                part.prepare()

    def restore(self, image: Tensor) -> Tensor:
        """(B, C, H, W) float images around [0, 1] -> (B, C', H, W) in [0, 1], without gradients."""
        with torch.inference_mode():
            return self(image).float().clamp(0, 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the batch in the validation scores."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the batch in the test scores."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, stage: str) -> None:
        output, loss = self.predict_and_loss(batch)
        if batch.is_padding is not None:
            return
        self.losses[stage].update(loss, weight=len(output))
        self.scores[stage].update(output, batch.target, batch.baseline)

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores, and let a scheduler that waits for them know."""
        scores = self._log_scores("val")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            step_plateaus(self.trainer, self.schedules(), scores)

    def on_test_epoch_end(self) -> None:
        """Log the test scores."""
        self._log_scores("test")

    def _log_scores(self, stage: str) -> dict[str, Tensor]:
        values = {"loss": self.losses[stage].compute(), **self.scores[stage].compute()}
        self.losses[stage].reset()
        scores = {f"{stage}/{name}": value for name, value in values.items()}
        # The metrics have gathered from all ranks, so their values are equal: the largest is exactly each one's own.
        self.log_dict(scores, sync_dist=True, reduce_fx="max")
        return scores

    def predict_step(self, batch: Batch | Tensor, batch_idx: int = 0) -> Tensor:
        """A batch, or its input images alone -> restored images, (B, C', H, W) in [0, 1]."""
        return self.restore(batch.input if isinstance(batch, Batch) else batch)

    # Schedules

    def schedules(self) -> Iterable[Any]:
        """The run's schedulers, each with ``scheduler``, ``interval``, ``frequency`` and ``monitor``."""
        return self.trainer.lr_scheduler_configs

    def higher_is_better(self) -> bool:
        """Whether the monitored value is: as its metric says, and a loss is not."""
        metric = self.scores["val"].answer
        name = self.monitor.rpartition("/")[2]
        return bool(metric[name].higher_is_better) if name in metric else False


def normalizations(network: nn.Module) -> list[tuple[str, str, Normalize]]:
    """Every Normalize of a network that stands for the data: its full name, its role and itself.

    The role is ``normalize_input`` or ``normalize_output``, the name that the network calls it by.
    """
    found = [(name, name.rpartition(".")[2], part) for name, part in network.named_modules()]
    return [entry for entry in found if entry[1] in ROLES and isinstance(entry[2], Normalize)]
