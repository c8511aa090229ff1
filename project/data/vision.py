"""torchvision's image data sets: downloaded once, exported once as PNG files, then read like any ready-made folder."""

from __future__ import annotations

import inspect
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from project.data.cache import Cache
from project.data.folder import Folder
from project.data.images import Entry
from project.data.parallel import counted
from workbench.console import rank_zero_print
from workbench.errors import UserError

# The names under which torchvision's data sets know their own parts, in the order to try.
PART_NAMES = {
    "train": ("train", "trainval", "train-standard", "train_noval"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
NO_DATA = {"DatasetFolder", "FakeData", "ImageFolder", "VisionDataset"}  # classes to build on, without images
PATIENCE = 20.0  # seconds that a server may be silent


def dataset_names() -> list[str]:
    """The names of torchvision's data sets."""
    from torchvision import datasets

    return sorted(name for name in set(datasets.__all__) - NO_DATA if inspect.isclass(getattr(datasets, name, None)))


class Torchvision:
    """One of torchvision's image data sets, with its own train, val and test parts where it has them.

    Args:
        name: The class's name in torchvision.datasets.
        cache: Gets the download, below torchvision/, and the export, NAME/{train,val,test}/CLASS/000001.png.
        progress: Whether a bar may be shown.
    """

    def __init__(self, name: str, cache: Cache, progress: bool = True) -> None:
        self.name = name
        self.cache = cache
        self.progress = progress
        self.downloads = cache.path("torchvision")
        self.folder = cache.path(name)

    def find(self) -> list[Entry]:
        """List the exported images; the first time, download and export them.

        Raises:
            UserError: When the download fails, or the data set does not give images.
        """
        if not self.folder.is_dir():
            self._export()
        return Folder(str(self.folder)).find()

    def _export(self) -> None:
        with self.cache.guarded():
            self.downloads.mkdir(parents=True, exist_ok=True)
        with self.cache.filling(self.name) as temporary:
            for part, dataset in self._parts():
                self._write(dataset, temporary / part, part)
        rank_zero_print(f"{self.name} now lies in {self.folder} as PNG files.")

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """(part, data set) for each part there is; a set without parts has one, named ""."""
        from torchvision import datasets

        kind = getattr(datasets, self.name)
        arguments = _arguments(kind)
        if "train" in arguments:
            yield "train", self._open(kind, train=True)
            yield "test", self._open(kind, train=False)
            return
        key = next((key for key in ("split", "image_set") if key in arguments), None)
        if key is None:
            yield "", self._open(kind)
            return
        found = False
        for part, names in PART_NAMES.items():
            for name in names:
                try:
                    dataset = self._open(kind, **{key: name})
                except ValueError:
                    continue
                found = True
                yield part, dataset
                break
        if not found:
            raise self._failed(f"it has none of the usual parts under its argument '{key}'")

    def _open(self, kind: type, **part: Any) -> Any:
        download = {"download": True} if "download" in _arguments(kind) else {}
        try:
            with _patience():
                return kind(str(self.downloads), **part, **download)
        except Exception as error:  # no network, a wrong checksum, no such file, a missing library
            if isinstance(error, ValueError) and "train" not in part and part:
                raise  # torchvision's word for a part that it does not have
            raise self._failed(_one_line(error)) from error

    def _read(self, dataset: Any, number: int) -> Any:
        try:
            return dataset[number]
        except Exception as error:  # a file that is missing or damaged, whatever the set reads it with
            raise self._failed(f"its sample {number} cannot be read ({_one_line(error)})") from error

    def _failed(self, cause: str) -> UserError:
        return UserError(
            f"--data.source {self.name} could not be had: {cause}\n"
            "Three ways out:\n"
            "  run this once where there is a network;\n"
            f"  or put the files that torchvision.datasets.{self.name} downloads into {self.downloads};\n"
            "  or use images that you have: --data.root FOLDER."
        )

    def _write(self, dataset: Any, folder: Path, part: str) -> None:
        samples = (self._read(dataset, number) for number in range(len(dataset)))
        what = f"Exporting {self.name} {part}".strip()
        for number, sample in enumerate(counted(samples, len(dataset), what, self.progress), start=1):
            image, label = sample[:2] if isinstance(sample, tuple) else (sample, None)
            if not isinstance(image, Image.Image):
                raise UserError(
                    f"--data.source {self.name} gives {type(image).__name__} where an image is needed.\n"
                    "Choose an image data set such as CIFAR10 or Flowers102, or use --data.root FOLDER."
                )
            with self.cache.guarded():
                path = folder / _class_name(dataset, label) / f"{number:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                (image if image.mode in ("1", "L", "P", "RGB", "RGBA") else image.convert("RGB")).save(
                    path, compress_level=1
                )


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


@contextmanager
def _patience() -> Iterator[None]:
    """Give up a server that says nothing: torchvision sets no limit, and the system's is minutes for every try."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _arguments(kind: type) -> set[str]:
    """The names that the constructor takes, also those that it hands on to its parent's as **kwargs."""
    names: set[str] = set()
    for parent in inspect.getmro(kind):
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(parent.__init__).parameters.values()
        names |= {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def _class_name(dataset: Any, label: Any) -> str:
    classes = getattr(dataset, "classes", None)
    if not isinstance(label, int):
        return ""
    name = str(classes[label]) if classes is not None and label < len(classes) else f"{label:04d}"
    return re.sub(r"[^\w .-]", "_", name).strip(" .") or f"{label:04d}"
