"""Where images come from: each source lists files without opening them."""

from __future__ import annotations

import importlib.util
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torchvision import datasets

from project.data.cache import Cache
from project.data.drawings import Drawings
from project.data.folder import find_images
from project.data.images import Entry, with_progress
from workbench.console import rank_zero_print
from workbench.errors import UserError, did_you_mean, one_line

SPLITS = {  # what chooses a split in torchvision's data sets, in the order to try
    "train": ({"train": True}, {"split": "train"}, {"split": "trainval"}, {"image_set": "train"}),
    "val": ({"split": "val"}, {"split": "valid"}, {"image_set": "val"}),
    "test": ({"train": False}, {"split": "test"}, {"image_set": "test"}),
}
SERVER_TIMEOUT = 20.0  # seconds: torchvision sets no limit, and the system's is minutes for every try

# Files of skimage/data that its _fetchers.py states to be CC0 or in the public domain, all larger than a usual crop.
COLOR = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "hubble_deep_field.jpg")
GRAY = ("camera.png", "brick.png", "grass.png", "gravel.png", "cell.png", "clock_motion.png")
PHOTOGRAPHS = COLOR + GRAY


def find_entries(source: str, root: str | Sequence[str] | None, target_root: str | None, cache: Cache) -> list[Entry]:
    """List the images of `data.source`, or of `data.root`, which wins over it."""
    if root is not None:
        return find_images(root, target_root)
    if target_root is not None or source == "folder":
        raise UserError("--data.source folder and --data.target_root need --data.root FOLDER, your images.")
    if source == "demo":
        package = importlib.util.find_spec("skimage").submodule_search_locations[0]  # without importing the library
        return [Entry(str(Path(package, "data", name)), name) for name in PHOTOGRAPHS]
    if source == "drawings":
        return Drawings(cache).find()
    if source in datasets.__all__:
        return find_torchvision(source, cache)
    known = ("demo", "drawings", "folder", *datasets.__all__)
    hint = did_you_mean({name.lower(): name for name in known}.get(source.lower(), source), known)
    raise UserError(
        f"--data.source {source} is unknown.{hint}\n"
        "It takes demo, drawings, folder (with --data.root), or a torchvision image data set (CIFAR10)."
    )


def partners(source: str, root: str | Sequence[str] | None, target_root: str | None) -> str | None:
    """The key that gives the images their targets, such as "data.target_root"; None if they have none."""
    if target_root is not None:
        return "data.target_root"
    return "data.source drawings" if root is None and source == "drawings" else None


def find_torchvision(name: str, cache: Cache) -> list[Entry]:
    """The images of a data set of torchvision: downloaded and exported once into the cache, then read like a folder.

    NAME/{train,val,test}/CLASS/000001.png, or NAME/CLASS/000001.png without splits of its own.
    """
    if not cache.path(name).is_dir():
        with cache.writing(name, folder=True) as folder:
            for part, dataset in _download(name, cache.path("torchvision")).items():
                _export(dataset, folder / part, f"--data.source {name}")
        rank_zero_print(f"{name} is now in {cache.path(name)} as PNG files.")
    return find_images(str(cache.path(name)))


def _download(name: str, folder: Path) -> dict[str, Any]:
    """split -> data set; a set without splits is one named ""."""
    kind = getattr(datasets, name)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SERVER_TIMEOUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {part: _open_first(kind, folder, choices) for part, choices in SPLITS.items()}
        found = {part: dataset for part, dataset in found.items() if dataset is not None}
        return found or {"": kind(str(folder), download=True)}
    except Exception as error:  # no network, a wrong checksum, no such file, a missing library
        raise UserError(
            f"--data.source {name} is not available: {one_line(error, 160)}\n"
            f"Run this once where there is a network, put the set's files into {folder}, or use --data.root FOLDER."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _open_first(kind: Any, folder: Path, choices: Sequence[dict[str, Any]]) -> Any:
    for choice in choices:
        with suppress(TypeError, ValueError):  # the set has no such argument, or no such split
            return kind(str(folder), download=True, **choice)
    return None


def _export(dataset: Any, folder: Path, key: str) -> None:
    for number in with_progress(range(len(dataset)), len(dataset), f"Exporting {folder.name}"):
        try:
            sample = dataset[number]
            image, label = sample[:2] if isinstance(sample, tuple) else (sample, None)
            image = image if image.mode in ("1", "L", "P", "RGB", "RGBA") else image.convert("RGB")
        except Exception as error:  # a damaged file, whatever the set reads it with; no image
            raise UserError(
                f"{key}: its sample {number} cannot be read as an image ({one_line(error, 160)}).\n"
                "Choose an image data set such as CIFAR10 or Flowers102, or use --data.root FOLDER."
            ) from error
        path = folder / _class_name(dataset, label) / f"{number + 1:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, compress_level=1)


def _class_name(dataset: Any, label: Any) -> str:
    if not isinstance(label, int):
        return ""
    classes = getattr(dataset, "classes", [])
    name = str(classes[label]) if label < len(classes) else f"{label:04d}"
    return re.sub(r"[^\w .-]", "_", name).strip(" .") or f"{label:04d}"
