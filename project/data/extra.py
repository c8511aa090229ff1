"""Further training pairs beside the user's own images: the surest answers of an ensemble, with where they come from.

The folder is what ``python -m project ensemble --min_confidence`` writes: ``inputs/`` and ``targets/``, files of the
same names, and ``manifest.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from project.data.cache import Cache
from project.data.images import Entry, ImageRecord, content_digest
from project.data.index import file_digests, index_pictures
from project.data.pairs import Coloring, Given, PairMaker
from workbench.console import rank_zero_print
from workbench.errors import UserError

INPUTS, TARGETS, MANIFEST = "inputs", "targets", "manifest.json"
TAG = "extra_pairs"
"""Of these images, for data.weights."""
SHOWN = 5


@dataclass(frozen=True)
class Manifest:
    """What a folder of extra pairs says of itself.

    Attributes:
        folder: Where it is.
        kind: Of task, as `kind_of` names it.
        pairs: Of each pair its ``file``, the image that it comes ``from``, that file's ``digest`` (may be missing)
            and the ``confidence``.
        members: Of each checkpoint that has answered, its path and hash.
    """

    folder: Path
    kind: str
    pairs: list[dict[str, Any]]
    members: list[dict[str, str]]


def kind_of(pairs: PairMaker | None) -> str:
    """What inputs and targets are to each other: lines and colors, lightness and colors, or any two images."""
    if isinstance(pairs, Coloring):
        return "lightness" if pairs.keeps_lightness else "lines"
    return "pictures"


def read_manifest(folder: str | Path) -> Manifest:
    """Read what a folder of extra pairs says of itself.

    Raises:
        UserError: The folder is missing or holds no such file, or a damaged one.
    """
    folder = Path(folder).expanduser().absolute()
    what = f"--data.extra_pairs {folder}"
    if not folder.is_dir():
        raise UserError(f"{what} {'is a file' if folder.exists() else 'does not exist'}.\n{_WAY_OUT}")
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
        pairs = [{**pair, "file": str(pair["file"]), "from": str(pair["from"])} for pair in found["pairs"]]
        members = [dict(member) for member in found["members"]]
    except FileNotFoundError as error:
        near = folder / "pairs"
        hint = f"Did you mean {near}?" if (near / MANIFEST).is_file() else _WAY_OUT
        raise UserError(f"{what} holds no {MANIFEST}, which says where its pairs come from.\n{hint}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{what}: its {MANIFEST} is damaged ({type(error).__name__}: {error}).\n{_WAY_OUT}") from error
    if not pairs:
        raise UserError(
            f"{what} holds no pair: nothing was sure enough.\nAsk for less: --min_confidence, or leave it out."
        )
    return Manifest(folder, found.get("kind", "pictures"), pairs, members)


def extra_pictures(
    manifest: Manifest,
    entries: Sequence[Entry],
    splits: dict[str, list[ImageRecord]],
    *,
    cache: Cache,
    min_size: int,
    on_bad_image: str,
    workers: int,
    progress: bool,
) -> list[ImageRecord]:
    """The pairs of a folder that may be trained on: not those whose image is in validation or test.

    Such an image is known by its path, or by its bytes wherever it lies.

    Args:
        manifest: Of the folder.
        entries: The user's own images.
        splits: Those, dealt.
        cache: Where verdicts on files are kept.
        min_size: Pixels that the shorter side must have.
        on_bad_image: error or skip.
        workers: Threads that decode.
        progress: Whether a bar may be shown.

    Returns:
        Images with partners and an ``origin``, by name.

    Raises:
        UserError: Files that are missing, broken, too small, or of two sizes; or when none is left.
    """
    held = [picture for part in ("val", "test") for picture in splits[part]]
    paths = {path for picture in held for path in (picture.path, picture.target_path) if path}
    known = file_digests(entries, cache=cache)
    digests = {known[path] for path in paths}
    leaking = [pair["file"] for pair in manifest.pairs if pair["from"] in paths or _digest(pair) in digests]
    if leaking:
        shown = ", ".join(leaking[:SHOWN]) + (", ..." if len(leaking) > SHOWN else "")
        rank_zero_print(
            f"Left out {len(leaking)} of {len(manifest.pairs)} extra pairs, whose images are in the validation or "
            f"test split: {shown}."
        )
    kept = {pair["file"]: pair["from"] for pair in manifest.pairs if pair["file"] not in leaking}
    if not kept:
        raise UserError(
            f"--data.extra_pairs {manifest.folder}: every pair comes from an image of the validation or test split.\n"
            "Let the ensemble answer other images, or leave data.extra_pairs out."
        )
    found = index_pictures(
        [_entry(manifest.folder, name) for name in sorted(kept)],
        cache=cache,
        min_size=min_size,
        on_bad_image=on_bad_image,
        workers=workers,
        progress=progress,
    )
    return [replace(picture, origin=kept[picture.name.removeprefix(f"{TAG}/")]) for picture in found]


def check_kind(manifest: Manifest, pairs: PairMaker, channels: int) -> None:
    """Refuse pairs of another task.

    Args:
        manifest: Of the folder.
        pairs: The run's pair maker.
        channels: Of the run's images.

    Raises:
        UserError: They are of another kind; or the network is given more than an image, which a pair does not have.
    """
    wanted = kind_of(pairs)
    name = type(pairs).__name__
    if manifest.kind != wanted:
        raise UserError(
            f"--data.extra_pairs {manifest.folder} holds {_KINDS.get(manifest.kind, manifest.kind)}, and data.pairs\n"
            f"{name} learns from {_KINDS[wanted]}. Have an ensemble of such networks answer."
        )
    given = len(pairs.normalization([0.0] * channels, [1.0] * channels)[0])
    if wanted == "pictures" and given != channels:
        raise UserError(
            f"data.extra_pairs holds images alone, and data.pairs {name} gives the network {given - channels} more "
            "channels (a noise map?).\nLeave data.extra_pairs out, or the further channels."
        )


def maker_of_extra(pairs: PairMaker) -> PairMaker:
    """What makes pairs of extra images and their partners, where the user's own images have no partners."""
    return pairs if isinstance(pairs, Coloring) or pairs.partner != "never" else Given()


def _entry(folder: Path, name: str) -> Entry:
    paths = [folder / part / name for part in (INPUTS, TARGETS)]
    outside = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    missing = [path for path in paths if outside or not path.is_file()]
    problem = f"is in {MANIFEST}, and there is no {missing[0]}" if missing else ""
    return Entry(str(paths[0]), f"{TAG}/{name}", str(paths[1]), TAG, "train", problem)


def _digest(pair: dict[str, Any]) -> str | None:
    """Of the image that a pair comes from; read where an early manifest does not say it and the file is there."""
    if "digest" in pair:
        return pair["digest"]
    try:
        return content_digest(Path(pair["from"]).read_bytes())
    except OSError:
        return None


_KINDS = {
    "pictures": "images and what they should become",
    "lines": "lines and their colors",
    "lightness": "gray photographs and their colors",
}
_WAY_OUT = "`python -m project ensemble --input FOLDER --output OUT --min_confidence 0.98` writes OUT/pairs."
