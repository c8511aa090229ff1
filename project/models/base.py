"""What both models share: the scores, the weights to start from, what is frozen."""

from __future__ import annotations

import warnings
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from project.data.batch import Batch
from project.models.finetune import FineTuning, freeze
from project.models.metrics import Scores
from project.models.schedules import step_plateaus
from project.networks.normalize import channels_of
from project.networks.weights import load_matching
from workbench.distributed import allow_unused_parameters, gather_weights
from workbench.errors import UserError, choose


class ImageToImageModule(LightningModule):
    """Images in, images out, scored beside the do-nothing output; see :class:`ImageRestorer` for the arguments.

    A model of your own writes ``networks``, ``forward``, ``predict_and_loss``, ``training_step`` and
    ``configure_optimizers``.
    """

    def __init__(
        self,
        metrics: dict[str, Metric],
        schedule_every: str,
        channels_last: bool,
        init_from: str | None,
        finetune: FineTuning,
    ) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.schedule_every = choose("model.schedule_every", schedule_every, ("auto", "step", "epoch"))
        self.init_from = init_from
        self.finetune = finetune
        self.scores = nn.ModuleDict({split: Scores(metrics) for split in ("val", "test")})
        self.losses = nn.ModuleDict({split: MeanMetric() for split in ("val", "test")})

    def networks(self) -> dict[str, nn.Module]:
        """The trainable parts, by attribute; the first makes the output."""
        raise NotImplementedError

    def predict_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The output for a batch, (B, C', H, W) around [0, 1], float32, and the loss, a scalar."""
        raise NotImplementedError

    def main_network(self) -> nn.Module:
        return next(iter(self.networks().values()))

    @property
    def declared_frozen(self) -> list[str]:
        """The layers that ``finetune`` may freeze, which the command check does not report."""
        stages = self.main_network().encoder_stages() if self.finetune.freezes else []
        return [f"{next(iter(self.networks()))}.{layer}" for stage in stages for layer in stage]

    def to_memory_format(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in the memory order that the networks work in."""
        return x.contiguous(memory_format=self.memory_format)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.finetune.unfreeze:
            because = "What model.finetune.unfreeze names gets no gradient until its epoch"
            allow_unused_parameters(self.trainer, because)
            # DDP reduces the gradients of what requires some when it wraps the model; on_fit_start freezes.
            freeze(self.main_network(), self.finetune, None)
        if self.finetune.freezes:
            warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode at the start of training")

    def check_channels(self, *wanted: tuple[str, str, int]) -> None:
        """Compare the networks' channels with the data's: (network, "in" or "out", channels)."""
        faults = []
        for name, side, channels in wanted:
            own = channels_of(self.networks()[name], side) if name in self.networks() else None
            if own not in (None, channels):
                key = f"model.init_args.{name}.init_args.{side}_channels"
                faults.append(f"- {key} is {own}: set {side}_channels: {channels}\n")
        if faults:
            raise UserError(
                f"The networks have other channels than the data:\n{''.join(faults)}"
                "Or change data.channels (1 gray, 3 color); a noise map and hints add theirs to the input."
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.init_from = None  # a resumed run does not start over

    def on_fit_start(self) -> None:
        """Load the weights to start from, once; by now a resumed run has loaded its own, and processes are joined."""
        self.apply_freezing()
        if self.init_from is None:
            return
        with gather_weights(self.trainer, write=True):
            (_, main), *others = self.networks().items()
            load_matching(main, self.init_from, "network.", "generator.")
            for name, network in others:
                load_matching(network, self.init_from, f"{name}.", required=False)
        self.init_from = None

    # What is frozen follows from the epoch, and stays in evaluation mode: running statistics would move.

    def apply_freezing(self) -> None:
        """Freeze what ``finetune`` says for this epoch; call it at the end of a constructor."""
        if self.finetune.freezes:
            freeze(self.main_network(), self.finetune, self.current_epoch)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode:
            self.apply_freezing()
        return self

    def on_train_start(self) -> None:
        self.apply_freezing()  # a resumed run may begin in any epoch

    on_train_epoch_start = on_train_start

    # Scores

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, split: str) -> None:
        output, loss = self.predict_and_loss(batch)
        if batch.is_padding is None:
            self.losses[split].update(loss, weight=len(output))
            self.scores[split].update(output, batch.target, batch.baseline)

    def on_validation_epoch_end(self) -> None:
        scores = self._log_scores("val")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            step_plateaus(self.trainer, scores)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, split: str) -> dict[str, Tensor]:
        values = {"loss": self.losses[split].compute(), **self.scores[split].compute()}
        self.losses[split].reset()
        scores = {f"{split}/{name}": value for name, value in values.items()}
        # The metrics have gathered from all ranks, so their values are equal: the largest is exactly each one's own.
        self.log_dict(scores, sync_dist=True, reduce_fx="max")
        return scores

    # Prediction

    def restore(self, image: Tensor) -> Tensor:
        """(B, C, H, W) float images around [0, 1] -> (B, C', H, W) in [0, 1], without gradients."""
        with torch.inference_mode():
            return self(image).float().clamp(0, 1)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int = 0) -> Tensor:
        """A batch, or its input images alone -> restored images, (B, C', H, W) in [0, 1]."""
        return self.restore(batch.input if isinstance(batch, Batch) else batch)
