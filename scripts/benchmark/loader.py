"""Images a second through the whole loader, against decoding alone and against a plain Dataset."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timing import Moment, print_comparison

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
            sides: dict[str, tuple[Callable[[], int], list[Moment]]] = {
                "loader, pixels kept": (_loader(root, crop, 2.0), []),
                "loader, decoding": (_loader(root, crop, 0.0), []),
                "Dataset of torchvision": (_plain(paths, crop), []),
                "decoding alone": (_decoding(paths), []),
            }
            for run, _ in sides.values():  # once, for what is read and imported the first time
                run()
            for _ in range(rounds):
                for run, times in sides.values():
                    start = Moment.now()
                    seen = run()
                    times.append(Moment.now().since(start, seen))
            print_comparison(f"an image, {title}", {name: times for name, (_, times) in sides.items()}, "us", 1e6)


def _make_images(root: Path, count: int, size: tuple[int, int], suffix: str) -> None:
    """Smooth colors with fine grain, which compress about as well as photographs do."""
    import numpy as np
    from PIL import Image

    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (size[1], size[0], 1))
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(
            root / f"{number:05d}.{suffix}", quality=90
        )


def _loader(root: Path, crop: int, cache_gb: float) -> Callable[[], int]:
    from project.data import ImageDataModule

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
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomCrop(crop), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.PILToTensor()])

    class Pictures(Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, number: int) -> Any:
            with Image.open(paths[number]) as picture:
                return transform(picture.convert("RGB"))

    loader = DataLoader(Pictures(), batch_size=BATCH, shuffle=True)
    return lambda: sum(len(batch) for batch in loader)


def _decoding(paths: list[str]) -> Callable[[], int]:
    from project.data.images import decode

    return lambda: sum(decode(path, 3) is not None for path in paths)
