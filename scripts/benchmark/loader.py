"""The time of an image in the whole loader, against decoding alone and against a plain Dataset."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from timing import print_comparison, take_turns, timed
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from project.data import ImageDataModule
from project.data.images import decode

BATCH, CROP = 16, 64


def compare_loaders(count: int, rounds: int) -> None:
    """Photographs (481 x 321 JPEG, crops of 64, flips), one process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        _make_images(root / "class", count)
        paths = sorted(str(path) for path in root.glob("*/*"))
        runs = {
            "loader, pixels kept": _loader(root, 2.0),
            "loader, decoding": _loader(root, 0.0),
            "Dataset of torchvision": _plain(root),
            "decoding alone": lambda: sum(decode(path, 3) is not None for path in paths),
        }
        times = take_turns({name: (lambda run=run: timed(run)) for name, run in runs.items()}, rounds)
    print_comparison("an image, 481x321 JPEG, crops of 64", times, "us", 1e6)


def _make_images(folder: Path, count: int) -> None:
    """Smooth colors with fine grain, which compress about as well as photographs do."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((481, 321))
        grainy = (np.asarray(coarse) + rng.normal(0, 6, (321, 481, 1))).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / f"{number:05d}.jpg", quality=90)


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
