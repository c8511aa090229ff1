"""Pseudo-labels: pairs to train on as well, predicted by an ensemble that was certain of them.

The folder is what ``python -m project ensemble --min_confidence`` writes: ``inputs/`` and ``targets/``, files of the
same names, and ``manifest.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from project.data.cache import Cache
from project.data.images import Entry, ImageRecord, listed
from project.data.index import index_images, scan
from project.data.pairs import Coloring, PairMaker
from workbench.console import rank_zero_print
from workbench.errors import UserError

INPUTS, TARGETS, MANIFEST = "inputs", "targets", "manifest.json"
TAG = "extra_pairs"  # of these images, for data.weights
_KINDS = {
    "pictures": "images and what they should become",
    "lines": "lines and their colors",
    "lightness": "gray photographs and their colors",
}
_WAY_OUT = "`python -m project ensemble --input FOLDER --output OUT --min_confidence 0.98` writes OUT/pairs."


def kind_of(pairs: PairMaker | None) -> str:
    """How inputs and targets relate: lines and colors, lightness and colors, or any two images."""
    if isinstance(pairs, Coloring):
        return "lightness" if pairs.keeps_lightness else "lines"
    return "pictures"


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """A folder's manifest; UserError where it is missing or damaged.

    Returns:
        ``folder``; ``kind`` of task, see `kind_of`; ``pairs``: ``file``, the image that it was predicted ``from``, that
        file's ``digest``; ``members``: path and hash of the ensemble's checkpoints.
    """
    folder = Path(folder).expanduser().absolute()
    what = f"--data.extra_pairs {folder}"
    if not folder.is_dir():
        raise UserError(f"{what} {'is a file' if folder.exists() else 'does not exist'}.\n{_WAY_OUT}")
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
        pairs = [{key: str(pair[key]) for key in ("file", "from", "digest")} for pair in found["pairs"]]
        members = [dict(member) for member in found["members"]]
    except FileNotFoundError as error:
        near = folder / "pairs"
        hint = f"Did you mean {near}?" if (near / MANIFEST).is_file() else _WAY_OUT
        raise UserError(f"{what} holds no {MANIFEST}, which names the images its pairs come from.\n{hint}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{what}: its {MANIFEST} is damaged ({type(error).__name__}: {error}).\n{_WAY_OUT}") from error
    if not pairs:
        raise UserError(f"{what} holds no pair: none was certain enough.\nLower --min_confidence, or leave it out.")
    return {"folder": str(folder), "kind": found.get("kind", "pictures"), "pairs": pairs, "members": members}


def check_kind(manifest: dict[str, Any], pairs: PairMaker, channels: int) -> None:
    """Refuse pairs of another task, and networks that get more than an image, which a pair does not have."""
    wanted, kind, name = kind_of(pairs), manifest["kind"], type(pairs).__name__
    if kind != wanted:
        raise UserError(
            f"--data.extra_pairs {manifest['folder']} holds {_KINDS.get(kind, kind)}, and data.pairs\n"
            f"{name} learns from {_KINDS[wanted]}. Use pairs of an ensemble of such networks."
        )
    further = len(pairs.normalization([0.0] * channels, [1.0] * channels)[0]) - channels
    if wanted == "pictures" and further:
        raise UserError(
            f"data.extra_pairs holds images alone, and data.pairs {name} gives the network {further} more channels "
            "(a noise map?).\nLeave data.extra_pairs out, or the further channels."
        )


def extra_records(
    manifest: dict[str, Any], entries: Sequence[Entry], held_out: Sequence[ImageRecord], *, cache: Cache, **options: Any
) -> list[ImageRecord]:
    """The pairs to train on, sorted by name: none of the images held out, known by its path or its bytes."""
    paths = {path for record in held_out for path in (record.path, record.target_path) if path}
    known = scan(entries, cache=cache)
    digests = {known[path].digest for path in paths}
    pairs = manifest["pairs"]
    leaking = [pair["file"] for pair in pairs if pair["from"] in paths or pair["digest"] in digests]
    if leaking:
        counts = f"{len(leaking)} of {len(pairs)} extra pairs"
        rank_zero_print(f"Left out {counts}, whose images are in the validation or test split:{listed(leaking)}")
    origins = {pair["file"]: pair["from"] for pair in pairs if pair["file"] not in leaking}
    if not origins:
        raise UserError(
            f"--data.extra_pairs {manifest['folder']}: every pair comes from an image of the validation or test "
            "split.\nRun the ensemble on other images, or leave data.extra_pairs out."
        )
    files = [_entry(Path(manifest["folder"]), name) for name in sorted(origins)]
    found = index_images(files, cache=cache, **options)
    return [replace(record, origin=origins[record.name.removeprefix(f"{TAG}/")]) for record in found]


def _entry(folder: Path, name: str) -> Entry:
    paths = [folder / part / name for part in (INPUTS, TARGETS)]
    outside = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    missing = [path for path in paths if outside or not path.is_file()]
    problem = f"is in {MANIFEST}, and there is no {missing[0]}" if missing else ""
    return Entry(str(paths[0]), f"{TAG}/{name}", str(paths[1]), TAG, "train", problem)
