"""Where images come from: each source is a class whose `find()` lists files without opening them.

A source of your own is a class with `find() -> list[Entry]` and no required arguments, named by its class path:
`--data.source my_package.MySource`. If its entries have targets (`target_path`) it says so by `paired = True`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from project.data.cache import Cache
from project.data.drawings import Drawings
from project.data.folder import Folder
from project.data.images import Entry, with_progress
from workbench.checkpoint import one_line
from workbench.console import rank_zero_print
from workbench.errors import UserError, did_you_mean

SPLIT_NAMES = {  # under which torchvision's data sets know their own splits, in the order to try
    "train": ("train", "trainval", "train-standard", "train_noval"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
NO_DATA = {"DatasetFolder", "FakeData", "ImageFolder", "VisionDataset"}  # torchvision's classes to build on
SERVER_TIMEOUT = 20.0  # seconds: torchvision sets no limit, and the system's is minutes for every try

# Files of skimage/data with the terms that skimage/data/_fetchers.py states. Left out: those whose terms are not stated
# or only "no known restrictions" (moon, page, coins, ihc, motorcycle), drawings, and those smaller than a usual crop.
PHOTOGRAPHS = {
    "astronaut.png": "public domain: NASA, Eileen Collins",
    "chelsea.png": "CC0: Stefan van der Walt, a cat",
    "coffee.png": "CC0: Rachel Michetti, courtesy of Pikolo Espresso Bar",
    "rocket.jpg": "public domain: SpaceX, launch of DSCOVR",
    "retina.jpg": "CC0: Mikael Häggström, fundus of a normal left eye",
    "hubble_deep_field.jpg": "public domain: NASA, Hubble eXtreme Deep Field",
    "camera.png": "CC0: Lav Varshney, gray",
    "brick.png": "CC0: CC0Textures, Bricks25, gray",
    "grass.png": "CC0: linolafett on DeviantArt, Grass 01, gray",
    "gravel.png": "CC0: CC0Textures, Gravel04, gray",
    "cell.png": "CC0: Paul Müller and others, phase image of a cell, gray",
    "clock_motion.png": "public domain: Stefan van der Walt, a clock in motion, gray",
}


def find_entries(source: str, root: str | Sequence[str] | None, target_root: str | None, cache: Cache) -> list[Entry]:
    """List the images of `data.source`, or of `data.root`, which wins over it."""
    if root is not None:
        return Folder(root, target_root).find()
    if target_root is not None:
        raise UserError("--data.target_root needs --data.root, the folder of the inputs.")
    if source == "folder":
        raise UserError("--data.source folder needs --data.root FOLDER, the folder of your images.")
    if source == "demo":
        return find_demo()
    if source == "drawings":
        return Drawings(cache).find()
    if "." in source:
        return _import(source).find()
    names = dataset_names()
    if source in names:
        return Torchvision(source, cache).find()
    known = ("demo", "drawings", "folder", *names)
    exact = [name for name in known if name.lower() == source.lower()]
    raise UserError(
        f"--data.source {source} is unknown.{did_you_mean(source, exact or known)}\n"
        "It takes demo, drawings, folder (with --data.root), a torchvision image data set (CIFAR10), or a class path."
    )


def partners(source: str, root: str | Sequence[str] | None, target_root: str | None) -> str | None:
    """The key that gives the images their targets, such as "data.target_root"; None if they have none."""
    if target_root is not None:
        return "data.target_root"
    if root is not None:
        return None
    paired = Drawings.paired if source == "drawings" else "." in source and getattr(_import(source), "paired", False)
    return f"data.source {source}" if paired else None


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        source = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"--data.source {path} cannot be made: {error}.") from error
    if not callable(getattr(source, "find", None)):
        raise UserError(f"--data.source {path} is no source: it has no find() that lists entries.")
    return source


def find_demo() -> list[Entry]:
    """The photographs in scikit-image's wheel that anybody may use, six in color and six gray; UserError without it."""
    spec = importlib.util.find_spec("skimage")  # finds the folder without importing the library
    folder = Path(spec.submodule_search_locations[0]) / "data" if spec else Path("skimage/data")
    entries = [Entry(str(folder / name), name) for name in PHOTOGRAPHS if (folder / name).is_file()]
    if not entries:
        raise UserError(
            f"--data.source demo needs the photographs of scikit-image, and {folder} holds none of them.\n"
            "Install it (make setup), or give your own images with --data.root FOLDER."
        )
    return entries


def dataset_names() -> list[str]:
    """The names of torchvision's data sets."""
    from torchvision import datasets

    return sorted(name for name in set(datasets.__all__) - NO_DATA if inspect.isclass(getattr(datasets, name, None)))


class Torchvision:
    """An image data set of torchvision: downloaded once below torchvision/ in the cache, exported once as
    NAME/{train,val,test}/CLASS/000001.png, then read like a folder."""

    def __init__(self, name: str, cache: Cache) -> None:
        self.name = name
        self.cache = cache
        self.downloads = cache.path("torchvision")
        self.folder = cache.path(name)

    def find(self) -> list[Entry]:
        """List the images; raise UserError if the download fails or the set holds no images."""
        if not self.folder.is_dir():
            with self.cache.guarded():
                self.downloads.mkdir(parents=True, exist_ok=True)
            with self.cache.filling(self.name) as temporary:
                for part, dataset in self._splits():
                    self._export(dataset, temporary / part, f"Exporting {self.name} {part}".strip())
            rank_zero_print(f"{self.name} is now in {self.folder} as PNG files.")
        return Folder(str(self.folder)).find()

    def _splits(self) -> Iterator[tuple[str, Any]]:
        """(split, data set) for each split there is; a set without splits has one, named ""."""
        from torchvision import datasets

        kind = getattr(datasets, self.name)
        arguments = constructor_arguments(kind)
        options = {"download": True} if "download" in arguments else {}
        key = next((key for key in ("train", "split", "image_set") if key in arguments), None)
        if key is None:
            yield "", self._open(kind, options)
            return
        if key == "train":
            yield "train", self._open(kind, {**options, "train": True})
            yield "test", self._open(kind, {**options, "train": False})
            return
        found = False
        for part, names in SPLIT_NAMES.items():
            for name in names:
                try:
                    dataset = self._open(kind, {**options, key: name})
                except ValueError:  # torchvision's response to a split that the set does not have
                    continue
                found = True
                yield part, dataset
                break
        if not found:
            raise self._failed(f"it has none of the usual splits under its argument '{key}'")

    def _open(self, kind: type, options: dict[str, Any]) -> Any:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SERVER_TIMEOUT)
        try:
            return kind(str(self.downloads), **options)
        except Exception as error:  # no network, a wrong checksum, no such file, a missing library
            if isinstance(error, ValueError) and options.keys() & {"split", "image_set"}:
                raise
            raise self._failed(one_line(error, 160)) from error
        finally:
            socket.setdefaulttimeout(before)

    def _export(self, dataset: Any, folder: Path, title: str) -> None:
        for number in with_progress(range(len(dataset)), len(dataset), title):
            try:
                sample = dataset[number]
            except Exception as error:  # a missing or damaged file, whatever the set reads it with
                raise self._failed(f"its sample {number} cannot be read ({one_line(error, 160)})") from error
            image, label = sample[:2] if isinstance(sample, tuple) else (sample, None)
            if not isinstance(image, Image.Image):
                raise UserError(
                    f"--data.source {self.name} gives {type(image).__name__} where an image is needed.\n"
                    "Choose an image data set such as CIFAR10 or Flowers102, or use --data.root FOLDER."
                )
            image = image if image.mode in ("1", "L", "P", "RGB", "RGBA") else image.convert("RGB")
            with self.cache.guarded():
                path = folder / _class_name(dataset, label) / f"{number + 1:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path, compress_level=1)

    def _failed(self, cause: str) -> UserError:
        return UserError(
            f"--data.source {self.name} is not available: {cause}\n"
            "Run this once where there is a network; or put the files that "
            f"torchvision.datasets.{self.name} downloads\ninto {self.downloads}; or use your own: --data.root FOLDER."
        )


def constructor_arguments(kind: type) -> set[str]:
    """The names that the constructor takes, also those that it hands on to its parents' as **kwargs."""
    names: set[str] = set()
    for parent in (parent for parent in inspect.getmro(kind) if "__init__" in vars(parent)):
        parameters = inspect.signature(parent.__init__).parameters
        names |= parameters.keys()
        if all(one.kind is not one.VAR_KEYWORD for one in parameters.values()):
            break
    return names


def _class_name(dataset: Any, label: Any) -> str:
    classes = getattr(dataset, "classes", None)
    if not isinstance(label, int):
        return ""
    name = str(classes[label]) if classes is not None and label < len(classes) else f"{label:04d}"
    return re.sub(r"[^\w .-]", "_", name).strip(" .") or f"{label:04d}"
