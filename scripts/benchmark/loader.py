"""Images a second through the whole loader, against decoding alone and against a plain Dataset."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from timing import Moment, print_comparison
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from project.data import ImageDataModule
from project.data.images import decode

BATCH = 16


def compare_loaders(count: int, rounds: int) -> None:
    """Photographs (481 x 321 JPEG, crops of 64) and icons (32 x 32 PNG, whole), one process, flips on; prints both."""
    with tempfile.TemporaryDirectory() as folder:
        for title, size, suffix, crop, number in (
            ("481x321 JPEG, crops of 64", (481, 321), "jpg", 64, count),
            ("32x32 PNG", (32, 32), "png", 32, 10 * count),
        ):
            root = Path(folder) / suffix
            _make_images(root, number, size, suffix)
            paths = sorted(str(path) for path in root.iterdir())
            sides = {
                "loader, pixels kept": _loader(root, crop, 2.0),
                "loader, decoding": _loader(root, crop, 0.0),
                "Dataset of torchvision": _plain(paths, crop),
                "decoding alone": lambda paths=paths: sum(decode(path, 3) is not None for path in paths),
            }
            for run in sides.values():  # once, for what is read and imported the first time
                run()
            times: dict[str, list[Moment]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, run in sides.items():
                    start = Moment.now()
                    seen = run()
                    times[name].append(Moment.now().since(start, seen))
            print_comparison(f"an image, {title}", times, "us", 1e6)


def _make_images(root: Path, count: int, size: tuple[int, int], suffix: str) -> None:
    """Smooth colors with fine grain, which compress about as well as photographs do."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grainy = (np.asarray(coarse) + rng.normal(0, 6, (size[1], size[0], 1))).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(root / f"{number:05d}.{suffix}", quality=90)


def _loader(root: Path, crop: int, cache_gb: float) -> Callable[[], int]:
    data = ImageDataModule(
        root=str(root),
        crop=crop,
        batch_size=BATCH,
        num_workers=0,
        fractions=(1.0, 0.0, 0.0),
        decoded_cache_gb=cache_gb,
        cache_dir=str(root.parent / f"cache-{root.name}-{cache_gb}"),
        seed=0,
    )
    data.prepare_data()
    data.setup("test")
    loader = data.train_dataloader()
    return lambda: sum(len(batch.image) for batch in loader)


def _plain(paths: list[str], crop: int) -> Callable[[], int]:
    transform = v2.Compose([v2.RandomCrop(crop), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.PILToTensor()])

    class Images(Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, number: int) -> Tensor:
            with Image.open(paths[number]) as image:
                return transform(image.convert("RGB"))

    loader = DataLoader(Images(), batch_size=BATCH, shuffle=True)
    return lambda: sum(len(batch) for batch in loader)
