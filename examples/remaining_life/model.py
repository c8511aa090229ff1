"""An LSTM that predicts how many cycles an engine has left; RMSE in cycles next to always predicting the mean."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError

from workbench.errors import UserError


class RemainingLife(LightningModule):
    """Logs ``val/rmse`` and ``val/rmse_baseline`` in cycles, likewise ``test/``; a loss of 1 is that of the mean.

    Args:
        sensors: Number of sensors that vary in the training data.
        layers: LSTM layers.
        width: Hidden units of each layer.
        dropout: Probability that a unit is dropped between layers and before the last one, in [0, 1).
        optimizer: Such as torch.optim.Adam, by its class path.
    """

    def __init__(
        self,
        sensors: int = 15,
        layers: int = 2,
        width: int = 64,
        dropout: float = 0.2,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
    ) -> None:
        super().__init__()
        if min(sensors, layers, width) < 1 or not 0 <= dropout < 1:
            raise UserError("sensors, layers and width must be at least 1, and dropout in [0, 1).")
        self.make_optimizer = optimizer
        self.lstm = nn.LSTM(sensors, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)
        # From the training engines; a checkpoint brings them along.
        self.register_buffer("columns", torch.arange(sensors))  # the sensors that vary, of all 21
        self.register_buffer("mean", torch.zeros(sensors))
        self.register_buffer("std", torch.ones(sensors))
        self.register_buffer("target_mean", torch.tensor(0.0))
        self.register_buffer("target_std", torch.tensor(1.0))
        names = [f"{split}_{name}" for split in ("val", "test") for name in ("rmse", "rmse_baseline")]
        self.scores = nn.ModuleDict({name: MeanSquaredError(squared=False) for name in names})

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        data = self.trainer.datamodule
        if len(data.columns) != len(self.columns):
            text = f"{len(data.columns)} sensors vary in the training data, and the model expects {len(self.columns)}."
            raise UserError(f"{text}\nSet --model.init_args.sensors {len(data.columns)}")
        for name in ("columns", "mean", "std", "target_mean", "target_std"):
            getattr(self, name).copy_(torch.as_tensor(getattr(data, name)))

    def forward(self, x: Tensor) -> Tensor:
        """Sensors as measured (B, T, 21), at the end rows of zeros, which change nothing -> cycles left (B,)."""
        cycles = torch.arange(x.shape[1], device=x.device)
        measured = (x != 0).any(dim=2)  # (B, T)
        scaled = (x[..., self.columns] - self.mean) / self.std * measured[..., None]
        hidden, _ = self.lstm(scaled)  # at each cycle, from those up to it
        last = (measured * cycles).amax(dim=1)
        hidden = hidden[torch.arange(len(x), device=x.device), last]
        return self.head(self.dropout(hidden)).squeeze(1) * self.target_std + self.target_mean

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.mse_loss(self(batch[0]), batch[1]) / self.target_std**2
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        output, target = self(batch[0]), batch[1]
        for name, prediction in (("rmse", output), ("rmse_baseline", self.target_mean.expand_as(target))):
            self.scores[f"{split}_{name}"].update(prediction, target)
            self.log(f"{split}/{name}", self.scores[f"{split}_{name}"])
        loss = F.mse_loss(output, target) / self.target_std**2
        self.log(f"{split}/loss", loss, sync_dist=True, batch_size=len(target))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make_optimizer(self.parameters())
