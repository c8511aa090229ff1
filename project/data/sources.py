"""Where images come from: each source is a class whose `find()` lists files without opening them.

A source of your own is a class with `find() -> list[Entry]` and no required arguments, named by its class path:
`--data.source my_package.MySource`. Where its entries have partners (`target_path`) it says so by `paired = True`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from typing import Protocol

from project.data.cache import Cache
from project.data.demo import Demo
from project.data.drawings import Drawings
from project.data.folder import Folder
from project.data.images import Entry
from project.data.vision import Torchvision, dataset_names
from workbench.errors import UserError


class Source(Protocol):
    """What every source can do."""

    def find(self) -> list[Entry]:
        """List the image files; raise UserError where there are none."""


def find_entries(
    source: str, root: str | Sequence[str] | None, target_root: str | None, cache: Cache, *, progress: bool = True
) -> list[Entry]:
    """List what a configuration names.

    Args:
        source: "demo", "drawings", "folder", a torchvision data set's name ("CIFAR10") or the class path of a source.
        root: One folder or several; it wins over the source, so that `--data.root` points any configuration elsewhere.
        target_root: The folder of the partners, for a folder pair.
        cache: Where data sets are downloaded and exported to.
        progress: Whether a bar may be shown.

    Raises:
        UserError: For an unknown source, a missing or empty folder, a download that fails.
    """
    return _make(source, root, target_root, cache, progress).find()


def partners(source: str, root: str | Sequence[str] | None, target_root: str | None) -> str | None:
    """Which key gives the images their partners, as in "data.target_root"; None where they have none.

    Args:
        source: As for `find_entries`.
        root: Likewise; then the source does not count.
        target_root: Likewise.

    Raises:
        UserError: For a class path that leads to no source.
    """
    if target_root is not None:
        return "data.target_root"
    if root is not None:
        return None
    paired = Drawings.paired if source == "drawings" else "." in source and getattr(_import(source), "paired", False)
    return f"data.source {source}" if paired else None


def _make(
    source: str, root: str | Sequence[str] | None, target_root: str | None, cache: Cache, progress: bool
) -> Source:
    if root is not None:
        return Folder(root, target_root)
    if target_root is not None:
        raise UserError("--data.target_root needs --data.root, the folder of the inputs.")
    if source == "demo":
        return Demo()
    if source == "drawings":
        return Drawings(cache, progress=progress)
    if source == "folder":
        raise UserError("--data.source folder needs --data.root FOLDER, the folder of your images.")
    if "." in source:
        return _import(source)
    names = dataset_names()
    if source in names:
        return Torchvision(source, cache, progress)
    known = ("demo", "drawings", "folder", *names)
    nearest = difflib.get_close_matches(source.lower(), [name.lower() for name in known], n=1)
    meant = [name for name in known if name.lower() in nearest]
    raise UserError(
        f"--data.source {source} is unknown" + (f"; did you mean {meant[0]}?" if meant else ".") + "\n"
        "It takes demo, drawings, folder (with --data.root), a torchvision image data set (CIFAR10), or a class path."
    )


def _import(path: str) -> Source:
    module, _, name = path.rpartition(".")
    try:
        source = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"--data.source {path} cannot be made: {error}.") from error
    if not callable(getattr(source, "find", None)):
        raise UserError(f"--data.source {path} is no source: it has no find() that lists entries.")
    return source
