"""Watch a model of your own in a script of your own: a small classifier, with one fault planted on request.

python examples/watch_any_model.py --fault dead|rate|frozen|nan|none
"""

from __future__ import annotations

import argparse

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import workbench


class Classifier(L.LightningModule):
    """Tells horizontal stripes from vertical ones."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8, 2)
        if fault == "dead":
            nn.init.constant_(self.features[0].bias, -100.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        held = self.head if self.fault == "frozen" else self
        return torch.optim.Adam(held.parameters(), lr=30.0 if self.fault == "rate" else 3e-3)


def batches(fault: str, count: int = 120, size: int = 16) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (count, 16), generator=generator)
    stripes = torch.sin(torch.arange(12) * 2.0).expand(count, size, 1, 12, 12)
    images = torch.where(labels[:, :, None, None, None] == 1, stripes, stripes.mT)
    images = images + 0.3 * torch.randn(images.shape, generator=generator)
    images[count // 2] *= float("nan") if fault == "nan" else 1.0
    return DataLoader(list(zip(images, labels, strict=True)), batch_size=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=("none", "dead", "rate", "frozen", "nan"), default="none")
    fault = parser.parse_args().fault
    torch.manual_seed(0)
    watch = workbench.Watch()
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    L.Trainer(callbacks=[watch], max_epochs=1, **quiet).fit(Classifier(fault), batches(fault))
    print("Faults:", ", ".join(finding.code for finding in watch.findings if finding.is_fault) or "none")
