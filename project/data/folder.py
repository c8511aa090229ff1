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


def find_images(root: str | Sequence[str], target_root: str | None = None) -> list[Entry]:
    """List the images below a folder, or several, whose names then are the tags; with a second folder, pairs.

    A folder that holds train/ and one of val/ (valid/, validation/) or test/, in any case, has ready-made splits.
    Targets have the same relative paths, whatever the extension. UserError for a missing folder or one without images.
    """
    roots = [root] if isinstance(root, str) else list(root)
    # An empty word is a shell's unset variable; as a path it would be the working directory.
    if not roots or "" in roots or target_root == "":
        raise UserError("--data.root and --data.target_root must name a folder; an empty name was given.")
    if target_root and len(roots) > 1:
        raise UserError("--data.target_root goes with one folder in --data.root, not with several.")
    folders = [Path(one).expanduser().absolute() for one in roots]
    tags = _distinct_names(folders) if len(folders) > 1 else [""]
    entries = [entry for folder, tag in zip(folders, tags, strict=True) for entry in _list(folder, tag)]
    return _with_targets(entries, folders[0], Path(target_root).expanduser().absolute()) if target_root else entries


def walk(folder: Path, key: str) -> list[tuple[str, str]]:
    """Every image file below a folder, by its extension alone, sorted by name; UserErrors name the option `key`.

    (POSIX path relative to the folder, absolute path) for each. Symbolic links are followed; hidden files and folders
    are ignored.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{key} {error.filename} cannot be opened: {error.strerror}.") from error

    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{key} {folder} {what}.\nGive the folder that holds the images, or several: '[a, b]'.")
    found: list[tuple[str, str]] = []
    others: Counter[str] = Counter()
    visited, top = set(), os.path.realpath(folder)
    for path, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside, real = os.path.relpath(path, folder), os.path.realpath(path)
        linked = real != os.path.normpath(os.path.join(top, inside))  # noqa: PTH118
        if real in visited or (linked and Path(real).is_relative_to(top)):  # found in its real place
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = "" if inside == "." else f"{Path(inside).as_posix()}/"
        for name in files:
            suffix = Path(name).suffix.lower()
            if suffix in EXTENSIONS and not name.startswith("."):
                found.append((prefix + name, f"{path}{os.sep}{name}"))
            elif not name.startswith("."):
                others[suffix or "no extension"] += 1
    if others:
        ignored = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        rank_zero_print(f"{folder}: {others.total()} files that are no images were ignored ({ignored}).")
    if not found:
        raise UserError(f"{key} {folder} holds no image.\nThose end in {' '.join(sorted(EXTENSIONS))}.")
    return sorted(found)


def _list(root: Path, tag: str) -> list[Entry]:
    files = walk(root, "--data.root")
    # By the folders, empty or not: an empty train/ is a mistake to report, and no reason to train on test/.
    _, folders, _ = next(os.walk(root), ("", [], []))
    parts = {PARTS.get(name.lower()) for name in folders}
    ready = "train" in parts and bool(parts & {"val", "test"})
    entries = []
    for name, path in files:
        folders, part = PurePosixPath(name).parts[:-1], "all"
        if ready:
            if not folders or folders[0].lower() not in PARTS:
                continue
            part, folders = PARTS[folders[0].lower()], folders[1:]
        own_tag = tag or (folders[0] if folders else "")
        entries.append(Entry(path, f"{tag}/{name}" if tag else name, tag=own_tag, part=part))
    if len(entries) < len(files):
        rank_zero_print(f"{root} holds ready-made splits; {len(files) - len(entries)} images beside them were ignored.")
    return entries


def _with_targets(entries: list[Entry], root: Path, target_root: Path) -> list[Entry]:
    targets: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, path in walk(target_root, "--data.target_root"):
        targets[_stem(name)].append((name, path))
    inputs = Counter(_stem(entry.name) for entry in entries)
    paired = []
    for entry in entries:
        stem = _stem(entry.name)
        found = targets.get(stem, [])
        if len(found) == inputs[stem] == 1:
            paired.append(replace(entry, target_path=found[0][1]))
        else:  # several differ only in their extension
            paired.append(replace(entry, problem=f"has no {'single ' if found else ''}target in {target_root}"))
    problem = f"is a target in {target_root} without an input in {root}"
    lonely = (file for stem, files in targets.items() if stem not in inputs for file in files)
    return paired + [Entry(path, name, problem=problem) for name, path in lonely]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _distinct_names(roots: list[Path]) -> list[str]:
    """The folders' own names, with as many parents as it takes to distinguish them."""
    for depth in range(1, max(len(root.parts) for root in roots) + 1):
        names = ["/".join(root.parts[-depth:]).strip("/") for root in roots]
        if len(set(names)) == len(roots):
            return names
    raise UserError(f"--data.root names the same folder twice: {', '.join(map(str, roots))}.")
