"""Images below the user's folders: found at any depth, paired by name, ready-made splits respected."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from project.data.images import EXTENSIONS, Entry
from workbench.console import rank_zero_print
from workbench.errors import UserError

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # folder -> split


class Folder:
    """Images below one folder, or several, whose names then are the tags; with a second folder, pairs.

    A folder that holds train/ and one of val/ (valid/, validation/) or test/, in any case, has ready-made splits.
    Targets have the same relative paths, whatever the extension. Symbolic links are followed; hidden files and folders
    are ignored.
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
        """List the images, sorted by name; UserError for a missing folder or one without images."""
        tags = _distinct_names(self.roots) if len(self.roots) > 1 else [""]
        entries = [entry for root, tag in zip(self.roots, tags, strict=True) for entry in _list(root, tag)]
        return _with_targets(entries, self.roots[0], self.target_root) if self.target_root else entries


def walk(folder: Path, key: str) -> list[tuple[str, str, str]]:
    """Every image file below a folder, by its extension alone, sorted by name; UserErrors name the option `key`.

    Returns:
        (POSIX path relative to the folder, absolute path, problem) for each; a problem is empty but for a folder that
        cannot be opened, which is listed as one such "file".
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
            if (about.st_dev, about.st_ino) in visited:  # links in a circle
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
            suffix = Path(item.name).suffix.lower()
            # The item's own method is faster, and raises for a link to itself.
            if Path(item.path).is_dir() if item.is_symlink() else item.is_dir():
                (linked if item.is_symlink() else real).append((f"{prefix}{item.name}/", item.path))
            elif suffix in EXTENSIONS:
                found.append((prefix + item.name, item.path, ""))
            else:
                others[suffix or "no extension"] += 1
    ignored = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    if not found:
        only = f", only other files ({ignored})" if others else ""
        raise UserError(f"{key} {folder} holds no image{only}.\nThose end in {' '.join(sorted(EXTENSIONS))}.")
    if others:
        rank_zero_print(f"{folder}: {others.total()} files that are no images were ignored ({ignored}).")
    return sorted(found)


def _list(root: Path, tag: str) -> list[Entry]:
    files = walk(root, "--data.root")
    ready = _has_ready_splits(root)
    entries = []
    for name, path, problem in files:
        folders, part = PurePosixPath(name).parts[:-1], "all"
        if ready:
            if not folders or folders[0].lower() not in PARTS:
                continue
            part, folders = PARTS[folders[0].lower()], folders[1:]
        own_tag = tag or (folders[0] if folders else "")
        entries.append(Entry(path, f"{tag}/{name}" if tag else name, tag=own_tag, part=part, problem=problem))
    if len(entries) < len(files):
        rank_zero_print(f"{root} holds ready-made splits; {len(files) - len(entries)} images beside them were ignored.")
    return entries


def _with_targets(entries: list[Entry], root: Path, target_root: Path) -> list[Entry]:
    targets: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, path, _ in walk(target_root, "--data.target_root"):
        targets[_stem(name)].append((name, path))
    inputs = Counter(_stem(entry.name) for entry in entries)
    paired = []
    for entry in entries:
        stem = _stem(entry.name)
        found = targets.get(stem, [])
        if len(found) == inputs[stem] == 1:
            paired.append(replace(entry, target_path=found[0][1]))
            continue
        problem = f"has no target in {target_root}"
        if found:
            problem = f"has no single target: several files are named {stem}, but for the extension"
        paired.append(replace(entry, problem=entry.problem or problem))
    problem = f"is a target in {target_root} without an input in {root}"
    lonely = (file for stem, files in targets.items() if stem not in inputs for file in files)
    return paired + [Entry(path, name, problem=problem) for name, path in lonely]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _has_ready_splits(root: Path) -> bool:
    """By its folders, empty or not: an empty train/ is a mistake to report, and no reason to train on test/."""
    try:
        parts = {PARTS.get(item.name.lower()) for item in root.iterdir() if item.is_dir()}
    except OSError:  # `walk` has reported it
        return False
    return "train" in parts and bool(parts & {"val", "test"})


def _distinct_names(roots: list[Path]) -> list[str]:
    """The folders' own names, with as many parents as it takes to distinguish them."""
    for depth in range(1, max(len(root.parts) for root in roots) + 1):
        names = ["/".join(root.parts[-depth:]).strip("/") for root in roots]
        if len(set(names)) == len(roots):
            return names
    raise UserError(f"--data.root names the same folder twice: {', '.join(map(str, roots))}.")
