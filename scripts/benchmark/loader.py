"""The time of an image in the whole loader, against decoding alone and against a plain Dataset."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image
from skimage.data import coffee
from timing import compare, timed
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from project.data import ImageDataModule
from project.data.images import decode

BATCH, CROP, COUNT = 16, 64, 150


def compare_loaders(rounds: int) -> None:
    """Photographs (481 x 321 JPEG, crops of 64, flips), one process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        (root / "class").mkdir(parents=True)
        for number in range(COUNT):
            photograph = Image.fromarray(coffee()).rotate(2 * number).resize((481, 321))
            photograph.save(root / "class" / f"{number:03d}.jpg", quality=90)
        paths = [str(path) for path in root.glob("*/*")]
        runs = {
            "loader, pixels kept": _loader(root, 2.0),
            "loader, decoding": _loader(root, 0.0),
            "Dataset of torchvision": _plain(root),
            "decoding alone": lambda: sum(decode(path, 3) is not None for path in paths),
        }
        sides = {name: partial(timed, run) for name, run in runs.items()}
        compare("an image, 481x321 JPEG, crops of 64", sides, rounds, "us", 1e6)


def _loader(root: Path, cache_gb: float) -> Callable[[], int]:
    data = ImageDataModule(
        root=str(root),
        crop=CROP,
        batch_size=BATCH,
        num_workers=0,
        fractions=(1.0, 0.0, 0.0),
        decoded_cache_gb=cache_gb,
        cache_dir=str(root.parent / f"cache-{cache_gb}"),
    )
    data.prepare_data()
    data.setup("test")
    loader = data.train_dataloader()
    return lambda: sum(len(batch.image) for batch in loader)


def _plain(root: Path) -> Callable[[], int]:
    flips = v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()
    images = ImageFolder(root, v2.Compose([v2.RandomCrop(CROP), *flips, v2.PILToTensor()]))
    loader = DataLoader(images, batch_size=BATCH, shuffle=True)
    return lambda: sum(len(batch) for batch, _ in loader)
