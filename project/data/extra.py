"""Pseudo-labels: pairs to train on as well, predicted by an ensemble that was certain of them.

The folder is what ``python -m project ensemble --min_confidence`` writes: ``inputs/`` and ``targets/``, files of the
same names, and ``manifest.json``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from project.data.cache import Cache
from project.data.folder import find_images
from project.data.images import Entry, ImageRecord, listed
from project.data.index import index_images, scan
from project.data.pairs import Coloring, PairMaker
from workbench.console import rank_zero_print
from workbench.errors import UserError

INPUTS, TARGETS, MANIFEST = "inputs", "targets", "manifest.json"
TAG = "extra_pairs"  # of these images, for data.weights


def kind_of(pairs: PairMaker | None) -> str:
    """How inputs and targets relate: lines and colors, lightness and colors, or any two images."""
    if isinstance(pairs, Coloring):
        return "lightness" if pairs.keeps_lightness else "lines"
    return "pictures"


def read_manifest(folder: str, pairs: PairMaker, channels: int) -> dict[str, Any]:
    """The ``members`` of the ensemble, and the ``pairs``: ``file``, the image that it comes ``from``, its ``digest``.

    UserError where the manifest is missing or damaged, or its pairs are no task of the pair maker's.
    """
    try:
        manifest = json.loads((Path(folder).expanduser() / MANIFEST).read_text("utf-8"))
        kind, found = manifest.get("kind", "pictures"), {name: manifest[name] for name in ("members", "pairs")}
    except (OSError, ValueError, KeyError) as error:
        way_out = "`python -m project ensemble --input FOLDER --output OUT --min_confidence 0.98` writes OUT/pairs."
        raise UserError(f"--data.extra_pairs {folder} has no readable {MANIFEST} ({error}).\n{way_out}") from error
    further = len(pairs.normalization([0.0] * channels, [1.0] * channels)[0]) - channels
    if kind != kind_of(pairs) or (kind == "pictures" and further):
        wanted = kind_of(pairs) if kind != kind_of(pairs) else f"{further} more channels (a noise map)"
        name = type(pairs).__name__
        raise UserError(f"--data.extra_pairs {folder} holds {kind}, and data.pairs {name} needs {wanted}.")
    return found


def extra_records(
    folder: str, manifest: dict, entries: list[Entry], held_out: list[ImageRecord], *, cache: Cache, **options: Any
) -> list[ImageRecord]:
    """The pairs to train on, sorted by name: none of the images held out, known by its path or its bytes."""
    paths = {path for record in held_out for path in (record.path, record.target_path) if path}
    known = scan(entries, cache)
    digests = {known[path].digest for path in paths}
    pairs = manifest["pairs"]
    leaking = [pair["file"] for pair in pairs if pair["from"] in paths or pair["digest"] in digests]
    if leaking:
        counts = f"{len(leaking)} of {len(pairs)} extra pairs"
        rank_zero_print(f"Left out {counts}, whose images are in the validation or test split:{listed(leaking)}")
    origins = {pair["file"]: pair["from"] for pair in pairs if pair["file"] not in leaking}
    if not origins:
        raise UserError(f"--data.extra_pairs {folder} holds no pair of an image that is neither in val nor in test.")
    files = find_images(*(str(Path(folder).expanduser() / part) for part in (INPUTS, TARGETS)))
    files = [replace(file, name=f"{TAG}/{file.name}", tag=TAG) for file in files if file.name in origins]
    found = index_images(files, cache=cache, **options)
    return [replace(record, origin=origins[record.name.removeprefix(f"{TAG}/")]) for record in found]
