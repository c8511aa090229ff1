"""``--hints`` and ``--palette``: colors that a user gives, parsed and checked; a log of what was made with them.

A hints file is JSON, with x and y in pixels of the upright image from its top left corner::

    {"face.png": [{"x": 64, "y": 20, "color": "#ff8800"}, [70, 90, "pink"]], "*": [[5, 5, "white"]]}

Names are relative to the input folder; ``*`` stands for every image without an entry of its own; for a single image
the list alone will do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace
from PIL import ImageColor

from project.data.pairs import Hints
from project.inference.image_files import InferenceItem, size_of
from workbench.errors import UserError, did_you_mean

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

EXAMPLE = '{"face.png": [{"x": 64, "y": 20, "color": "#ff8800"}, [70, 90, "pink"]], "*": [[5, 5, "white"]]}'
COLOR_FORMS = '"#ff8800", "#f80", a CSS name such as "orange", or [255, 136, 0]'
EVERY = "*"


class Hint(NamedTuple):
    """A point and its color; x (column) and y (row) in pixels of the upright image, from 0."""

    x: float
    y: float
    color: Color


@dataclass(frozen=True)
class HintRequest:
    """What a user asked for in color.

    Attributes (None where not given):
        hints: The file's points by the image's name.
        palette: Colors without places, for every image.
        size: Pixels of the shorter side to color at, 0 for the image's own.
    """

    hints: dict[str, tuple[Hint, ...]] | None = None
    palette: tuple[Hint, ...] | None = None
    size: int | None = None

    @property
    def option(self) -> str | None:
        """The option that was given and only a colorizer can use."""
        given = {"--palette": self.palette, "--hints": self.hints, "--size": self.size}
        return next((name for name, value in given.items() if value is not None), None)

    def of(self, name: str) -> tuple[Hint, ...]:
        """The hints for one image."""
        return self.palette or (self.hints or {}).get(name, ())

    def fingerprint(self, name: str) -> str:
        """A short text that changes with anything asked for this image; empty where nothing is."""
        points = self.of(name)
        if not points and self.size is None:
            return ""
        words = json.dumps([bool(self.palette), points, self.size])
        return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()

    def check(self, trained: Hints | None) -> None:
        """Refuse hints of another kind than those of the network's training (None: it does not color)."""
        fitting = {None, "--size"}
        if trained is None:
            fitting, reason = {None}, "does not color"
        elif trained.channels == 0:
            reason = "was trained without hints"
        elif trained.slots is None:
            fitting.add("--hints")
            reason = f"was trained with hints at their places: --hints FILE, as {EXAMPLE}"
        else:
            fitting.update(["--palette"] * (len(self.palette or ()) <= trained.slots))
            reason = f'was trained with palettes of at most {trained.slots} colors: --palette "#ff8800,#224466"'
        if self.option not in fitting:
            raise UserError(f"{self.option} does not suit this network, which {reason}.")


def parse_request(options: Namespace, items: Sequence[InferenceItem]) -> HintRequest:
    """The options ``--hints``, ``--palette`` and ``--size``."""
    if options.hints is not None and options.palette is not None:
        raise UserError("--hints and --palette exclude each other: a network takes one of the two.")
    return HintRequest(
        None if options.hints is None else parse_hints(options.hints, items),
        None if options.palette is None else tuple(Hint(0, 0, color) for color in parse_palette(options.palette)),
        options.size,
    )


def parse_color(value: Any) -> Color:
    """One color, from text or a list of three whole numbers; ValueError gives a short reason."""
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return tuple(value)
    text, near = value.strip() if isinstance(value, str) else "", ""
    try:
        color = ImageColor.getrgb(text)
    except ValueError:
        is_hex = re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", text)
        near = f" Did you mean #{text}?" if is_hex else did_you_mean(text.lower(), ImageColor.colormap)
        color = ()
    if len(color) != 3 or max(color) > 255:
        raise ValueError(f"{json.dumps(value)[:60]} is not a color.{near or f' A color is {COLOR_FORMS}'}")
    return color


def parse_palette(text: str) -> tuple[Color, ...]:
    """The colors of ``--palette``, separated by commas or as a JSON list."""
    try:
        # Commas within parentheses belong to one color: rgb(255, 136, 0).
        parts = json.loads(text) if text.strip().startswith("[") else re.split(r"[,;](?![^(]*\))", text)
        return tuple(parse_color(part) for part in parts)
    except ValueError as error:
        raise UserError(f'--palette: {error}\nGive colors: --palette "#ff8800,#224466,white"') from error


def parse_hints(path: str | Path, items: Sequence[InferenceItem]) -> dict[str, tuple[Hint, ...]]:
    """The hints of each image, for the images that have any.

    Raises:
        UserError: The first that is wrong: a missing file, no JSON, an unknown image, a point outside its image, ...
    """
    path, names = Path(path).expanduser(), [item.name for item in items]
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_unique)
        if isinstance(content, list) and len(items) == 1:
            content = {names[0]: content}
        if not isinstance(content, dict):
            raise ValueError(f"not a list for each of {len(items)} images")
        points = {}
        for key, entries in content.items():
            if key != EVERY and key not in names:
                alike = [known for known in names if known.endswith(f"/{key.rpartition('/')[2]}")]
                near = did_you_mean(key, alike[:1] or names, cutoff=0.3)
                raise ValueError(f'"{key[:80]}" is none of the images.{near}')
            if not isinstance(entries, list):
                raise ValueError(f'"{key}" must have a list of points')
            points[key] = tuple(_parse_point(f'"{key}", point {n}', entry) for n, entry in enumerate(entries, 1))
        found = {item: points.get(item.name, points.get(EVERY, ())) for item in items}
        for item, hints in found.items():
            _check_inside(item, hints)
    except (OSError, ValueError, RecursionError) as error:  # no file, no text, no JSON, nested without end
        raise UserError(f"--hints {path}: {str(error)[:300]}\nIts form: {EXAMPLE}") from error
    return {item.name: hints for item, hints in found.items() if hints}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f'"{twice}" is there twice')  # of which JSON's reader would keep the last alone
    return dict(pairs)


def _parse_point(where: str, entry: Any) -> Hint:
    if isinstance(entry, dict) and set(entry) == {"x", "y", "color"}:
        entry = [entry["x"], entry["y"], entry["color"]]
    if not isinstance(entry, list) or len(entry) != 3:
        raise ValueError(
            f'{where}: {json.dumps(entry)[:60]} is not {{"x": 1, "y": 2, "color": "red"}} or [1, 2, "red"]'
        )
    for value in entry[:2]:
        if type(value) not in (int, float) or not abs(value) < 1e9:  # Python's JSON knows NaN
            raise ValueError(f"{where}: {json.dumps(value)[:40]} is not a number of pixels")
    try:
        return Hint(entry[0], entry[1], parse_color(entry[2]))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_inside(item: InferenceItem, hints: Sequence[Hint]) -> None:
    # Of a broken image there is no size; it is reported with its reason when its turn comes.
    width, height = (size_of(item.source) if hints else None) or (math.inf, math.inf)
    for number, (x, y, _) in enumerate(hints, 1):
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f'"{item.name}", point {number}: {x:g}, {y:g} is outside the {width} x {height} pixels')


class DoneLog:
    """What each output of a folder was colored with: a JSON line [name, fingerprint] for each image.

    An output's time shows whether the image or the checkpoint is newer, not which hints it was made with. Where a line
    is missing or broken, the image is colored again. The file is written only where anything was asked for.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / ".colored.jsonl"
        self.fingerprints: dict[str, str] = {}
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in self.path.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError):  # cut off when the machine went down
                    name, fingerprint = json.loads(line)
                    self.fingerprints[name] = fingerprint

    def matches(self, name: str, fingerprint: str) -> bool:
        """Whether that name's output was made with what the fingerprint stands for."""
        return self.fingerprints.get(name, "") == fingerprint

    def record(self, item: InferenceItem, fingerprint: str) -> None:
        """Note what the item's output, written next, is made with; the old output goes first: it would pass for it."""
        if not self.matches(item.name, fingerprint):
            item.target.unlink(missing_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([item.name, fingerprint]) + "\n")
            self.fingerprints[item.name] = fingerprint
