"""Image classification: a torchvision backbone, frozen at first and then fine-tuned; accuracy next to guessing."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy
from torchvision.models import get_model


class Classifier(LightningModule):
    """Logs ``val/accuracy`` and ``val/accuracy_baseline``, that of always guessing the most frequent training class.

    Args:
        classes: Number of classes.
        backbone: Name of a torchvision network with a layer ``fc``, such as resnet18.
        weights: DEFAULT downloads torchvision's; null starts from random weights.
        unfreeze_epoch: Until this epoch only the last layer is trained; 0: everything from the start.
        lr: Learning rate of the last layer.
        backbone_rate: Share of it for the backbone: 0.1 for pretrained weights, 1 for random ones.
    """

    def __init__(
        self,
        classes: int = 10,
        backbone: str = "resnet18",
        weights: str | None = None,
        unfreeze_epoch: int = 0,
        lr: float = 1e-3,
        backbone_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.unfreeze_epoch, self.lr, self.backbone_rate = unfreeze_epoch, lr, backbone_rate
        self.backbone = get_model(backbone, weights=weights)
        self.head = nn.Linear(self.backbone.fc.in_features, classes)
        self.backbone.fc = nn.Identity()
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.long))  # training images of each class
        names = [f"{split}_{name}" for split in ("val", "test") for name in ("accuracy", "accuracy_baseline")]
        self.scores = nn.ModuleDict({name: MulticlassAccuracy(classes, average="micro") for name in names})
        self.declared_frozen = ["backbone"] if unfreeze_epoch else []  # on purpose: `check` does not report them
        self._freeze()

    def _freeze(self) -> None:
        frozen = self.current_epoch < self.unfreeze_epoch
        self.backbone.requires_grad_(not frozen)
        if frozen:
            self.backbone.eval()  # running statistics stay, too

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        self._freeze()
        return self

    def on_train_epoch_start(self) -> None:
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), normalized -> logits (B, classes)."""
        return self.head(self.backbone(x))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen += F.one_hot(batch[1], len(self.seen)).sum(dim=0)
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        logits, target = self(batch[0]), batch[1]
        guesses = {"accuracy": logits.argmax(1), "accuracy_baseline": self.seen.argmax().expand_as(target)}
        for name, guess in guesses.items():
            self.scores[f"{split}_{name}"].update(guess, target)
            self.log(f"{split}/{name}", self.scores[f"{split}_{name}"])
        self.log(f"{split}/loss", F.cross_entropy(logits, target), sync_dist=True, batch_size=len(target))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        backbone = {"params": self.backbone.parameters(), "lr": self.lr * self.backbone_rate}
        return torch.optim.Adam([{"params": self.head.parameters()}, backbone], lr=self.lr)
