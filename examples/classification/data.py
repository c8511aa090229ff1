"""A folder per class, as torchvision's ImageFolder reads it; small images, kept in memory as uint8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import ImageFolder

from workbench.errors import UserError


class ImageClasses(LightningDataModule):
    """70/20/10 splits by seed; mean and standard deviation of the training images, one value a channel.

    Args:
        root: Folder with one folder of images for each class.
        size: Height and width that images are resized to, in pixels.
        batch_size: Images a step.
        flip: Mirror half of the training images.
        seed: Of the splits.
    """

    def __init__(self, root: str, size: int = 32, batch_size: int = 64, flip: bool = True, seed: int = 0) -> None:
        super().__init__()
        self.root, self.size, self.batch_size, self.flip, self.seed = root, size, batch_size, flip, seed
        self.sets: dict[str, TensorDataset] = {}

    def setup(self, stage: str) -> None:
        if self.sets:
            return
        if not any(path.is_dir() for path in Path(self.root).glob("*")):
            raise UserError(f"data.root {self.root} is not a folder that holds a folder of images for each class.")
        folder = ImageFolder(self.root, loader=lambda path: Image.open(path).convert("RGB"))
        pixels = np.stack([np.asarray(image.resize((self.size, self.size))) for image, _ in folder])
        images, labels = torch.from_numpy(pixels).movedim(-1, 1).contiguous(), torch.tensor(folder.targets)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        first, second = round(0.7 * len(order)), round(0.9 * len(order))
        parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
        self.sets = {name: TensorDataset(images[index], labels[index]) for name, index in parts.items()}
        train = self.sets["train"].tensors[0].double() / 255
        std, mean = torch.std_mean(train, dim=(0, 2, 3), correction=0, keepdim=True)
        self.mean, self.std = mean.float(), std.float()

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """uint8 -> normalized float, on the device."""
        x = batch[0].float() / 255
        if self.flip and self.trainer is not None and self.trainer.training:
            mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        return (x - self.mean.to(x.device)) / self.std.to(x.device), batch[1]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.sets["train"], self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self, split: str = "val") -> DataLoader:
        return DataLoader(self.sets[split], self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader("test")
