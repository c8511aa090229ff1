"""Images below a folder of the user's: found at any depth, paired by name, ready-made parts respected."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from project.data.images import EXTENSIONS, Entry, is_picture_name
from workbench.console import rank_zero_print
from workbench.errors import UserError

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # folder's name -> part


class Folder:
    """Images below one folder or several, at any depth; with a second folder of partners, pairs.

    A folder that holds train/ and one of val/ (valid/, validation/) or test/, in either case, is taken as ready-made
    parts. Symbolic links are followed; hidden files and folders are left aside.

    Args:
        root: One folder, or several to merge; then the folders' names are the tags.
        target_root: The partners' folder: the same relative paths, whatever the extension.

    Raises:
        UserError: For an empty name, or several folders with a target_root.
    """

    def __init__(self, root: str | Sequence[str], target_root: str | None = None) -> None:
        roots = [root] if isinstance(root, str) else list(root)
        # An empty word is a shell's unset variable; as a path it would be the working directory.
        if not roots or "" in roots or target_root == "":
            raise UserError("--data.root and --data.target_root must name a folder; an empty name was given.")
        self.roots = [Path(one).expanduser().absolute() for one in roots]
        self.target_root = Path(target_root).expanduser().absolute() if target_root else None
        if self.target_root and len(self.roots) > 1:
            raise UserError("--data.target_root goes with one folder in --data.root, not with several.")

    def find(self) -> list[Entry]:
        """List the images, sorted by name; raise UserError for a missing folder or one without images."""
        tags = _distinct_names(self.roots) if len(self.roots) > 1 else [""]
        entries = [entry for root, tag in zip(self.roots, tags, strict=True) for entry in self._find_in(root, tag)]
        return self._with_partners(entries) if self.target_root else entries

    def _find_in(self, root: Path, tag: str) -> list[Entry]:
        files = walk(root, "--data.root")
        ready = _has_ready_parts(root)
        entries, beside = [], 0
        for name, path, problem in files:
            folders = PurePosixPath(name).parts[:-1]
            part = "all"
            if ready:
                if not folders or folders[0].lower() not in PARTS:
                    beside += 1
                    continue
                part, folders = PARTS[folders[0].lower()], folders[1:]
            own_tag = tag or (folders[0] if folders else "")
            full_name = f"{tag}/{name}" if tag else name
            entries.append(Entry(path, full_name, tag=own_tag, part=part, problem=problem))
        if beside:
            rank_zero_print(f"{root} holds ready-made parts; {beside} images beside them were left aside.")
        return entries

    def _with_partners(self, entries: list[Entry]) -> list[Entry]:
        targets: dict[str, list[tuple[str, str]]] = {}
        for name, path, _ in walk(self.target_root, "--data.target_root"):
            targets.setdefault(_stem(name), []).append((name, path))
        inputs = Counter(_stem(entry.name) for entry in entries)
        paired = [_pair(entry, inputs, targets, self.target_root) for entry in entries]
        lonely = (files for stem, files in targets.items() if stem not in inputs)
        paired += [
            Entry(path, name, problem=f"is a target in {self.target_root} without an input in {self.roots[0]}")
            for files in lonely
            for name, path in files
        ]
        return paired


def walk(folder: Path, key: str) -> list[tuple[str, str, str]]:
    """Every image file below a folder, by its extension alone, sorted by name.

    Args:
        folder: Where to look, at any depth. Each folder is visited once, so that links in a circle come to an end.
        key: The configuration key to name in an error.

    Returns:
        (POSIX path relative to the folder, absolute path, problem) for each; a problem is empty but for a folder that
        cannot be opened, which is listed as one such "file".

    Raises:
        UserError: When the folder is missing, is no folder, or holds no image.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{key} {folder} {what}.\nGive the folder that holds the images, or several: '[a, b]'.")
    found: list[tuple[str, str, str]] = []
    others: Counter[str] = Counter()
    visited: set[tuple[int, int]] = set()
    real, linked = [("", str(folder))], []
    while real or linked:  # links last: a folder is named by its real place where that lies below the root
        prefix, path = (real or linked).pop()
        try:
            about = Path(path).stat()
            if (about.st_dev, about.st_ino) in visited:
                continue
            visited.add((about.st_dev, about.st_ino))
            with os.scandir(path) as scan:
                inside = sorted(scan, key=lambda item: item.name, reverse=True)
        except OSError as error:
            found.append((prefix.rstrip("/") or ".", path, f"is a folder that cannot be opened ({error.strerror})"))
            continue
        for item in inside:
            if item.name.startswith(".") or item.name == "Thumbs.db":
                continue
            name = prefix + item.name
            if _is_folder(item):
                (linked if item.is_symlink() else real).append((f"{name}/", item.path))
            elif is_picture_name(item.name):
                found.append((name, item.path, ""))
            else:
                others[Path(item.name).suffix.lower() or "no extension"] += 1
    aside = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    if not found:
        raise UserError(
            f"{key} {folder} holds no image" + (f", only other files ({aside})" if others else "") + ".\n"
            f"Images are files that end in {' '.join(sorted(EXTENSIONS))}, at any depth."
        )
    if others:
        rank_zero_print(f"{folder}: {others.total()} files that are no images were left aside ({aside}).")
    return sorted(found)


def _pair(entry: Entry, inputs: Counter[str], targets: dict[str, list[tuple[str, str]]], target_root: Path) -> Entry:
    stem = _stem(entry.name)
    partners = targets.get(stem, [])
    problem, target = entry.problem, None
    if not partners:
        problem = problem or f"has no partner in {target_root}"
    elif len(partners) > 1 or inputs[stem] > 1:
        problem = problem or f"has no single partner: several files are named {stem}, but for the extension"
    else:
        target = partners[0][1]
    return Entry(entry.path, entry.name, target, entry.tag, entry.part, problem)


def _is_folder(item: os.DirEntry) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to itself
        return False


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _has_ready_parts(root: Path) -> bool:
    """By its folders, empty or not: an empty train/ is a mistake to be said, and no reason to train on test/."""
    try:
        parts = {PARTS.get(item.name.lower()) for item in root.iterdir() if item.is_dir()}
    except OSError:  # `walk` has told it
        return False
    return "train" in parts and bool(parts & {"val", "test"})


def _distinct_names(roots: list[Path]) -> list[str]:
    """The folders' own names, with as many parents as it takes to tell them apart."""
    for depth in range(1, max(len(root.parts) for root in roots) + 1):
        names = ["/".join(root.parts[-depth:]).strip("/") for root in roots]
        if len(set(names)) == len(roots):
            return names
    raise UserError(f"--data.root names the same folder twice: {', '.join(map(str, roots))}.")
