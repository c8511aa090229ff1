"""``--hints`` and ``--palette``: colors that a user gives, parsed and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from PIL import ImageColor

from project.data.pairs import Hints, Point
from workbench.errors import UserError, did_you_mean

Color = tuple[float, float, float]  # red, green and blue, each in [0, 1]
EXAMPLE = '{"face.png": [{"x": 64, "y": 20, "color": "#ff8800"}], "*": [{"x": 5, "y": 5, "color": "white"}]}'
EVERY = "*"  # in a hints file: images without an entry of their own


@dataclass(frozen=True)
class HintRequest:
    """What a user asked for in color; None where not given."""

    hints: dict[str, tuple[Point, ...]] | None = None  # by the image's name; in pixels of the upright image
    palette: tuple[Point, ...] | None = None  # colors without places, for every image
    size: int | None = None  # pixels of the shorter side to color at, 0 for the image's own

    def of(self, name: str) -> tuple[Point, ...]:
        """The hints for one image."""
        return self.palette or (self.hints or {}).get(name, ())

    def check(self, trained: Hints | None) -> None:
        """Refuse hints of another kind than those of the network's training (None: it does not color)."""
        fitting = ["--size"]
        if trained is None:
            fitting, reason = [], "does not color"
        elif trained.channels == 0:
            reason = "was trained without hints"
        elif trained.slots is None:
            fitting.append("--hints")
            reason = f"was trained with hints at their places: --hints FILE, as {EXAMPLE}"
        else:
            if len(self.palette or ()) <= trained.slots:
                fitting.append("--palette")
            reason = f'was trained with palettes of at most {trained.slots} colors: --palette "#ff8800,#224466"'
        given = {"--palette": self.palette, "--hints": self.hints, "--size": self.size}
        for option, value in given.items():
            if value is not None and option not in fitting:
                raise UserError(f"{option} does not suit this network, which {reason}.")


def parse_request(options: Namespace, names: Sequence[str]) -> HintRequest:
    """The options ``--hints``, ``--palette`` and ``--size``, for images of these names."""
    if options.hints is not None and options.palette is not None:
        raise UserError("--hints and --palette exclude each other: a network takes one of the two.")
    return HintRequest(
        None if options.hints is None else parse_hints(options.hints, names),
        None if options.palette is None else tuple(Point(0, 0, color) for color in parse_palette(options.palette)),
        options.size,
    )


def parse_color(text: Any) -> Color:
    """One color, as #ff8800, #f80, orange or rgb(255, 136, 0); ValueError gives a short reason."""
    try:
        color = ImageColor.getrgb(text.strip())
    except (ValueError, AttributeError):
        color = ()
    if len(color) != 3 or max(color) > 255:
        near = did_you_mean(str(text).lower(), ImageColor.colormap)
        raise ValueError(f'{json.dumps(text)[:60]} is not a color such as "#ff8800" or "orange".{near}')
    return tuple(level / 255 for level in color)


def parse_palette(text: str) -> tuple[Color, ...]:
    """The colors of ``--palette``, separated by commas."""
    try:
        # Commas within parentheses belong to one color: rgb(255, 136, 0).
        return tuple(parse_color(part) for part in re.split(r",(?![^(]*\))", text))
    except ValueError as error:
        raise UserError(f'--palette: {error}\nGive colors: --palette "#ff8800,#224466,white"') from error


def parse_hints(path: str | Path, names: Sequence[str]) -> dict[str, tuple[Point, ...]]:
    """The hints of each image, for the images that have any; UserError for the first that is wrong."""
    path = Path(path).expanduser()
    try:
        content = json.loads(path.read_text("utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError(f"not a list for each of {len(names)} images")
        points = {}
        for key, entries in content.items():
            if key != EVERY and key not in names:
                raise ValueError(f'"{key[:80]}" is none of the images.{did_you_mean(key, names, cutoff=0.3)}')
            if not isinstance(entries, list):
                raise ValueError(f'"{key}" must have a list of points')
            points[key] = tuple(_parse_point(f'"{key}", point {n}', entry) for n, entry in enumerate(entries, 1))
    except (OSError, ValueError) as error:  # no file, no text, no JSON
        raise UserError(f"--hints {path}: {str(error)[:300]}\nIts form: {EXAMPLE}") from error
    found = {name: points.get(name, points.get(EVERY, ())) for name in names}
    return {name: hints for name, hints in found.items() if hints}


def _parse_point(where: str, entry: Any) -> Point:
    try:
        return Point(float(entry["x"]), float(entry["y"]), parse_color(entry["color"]))
    except (KeyError, TypeError):
        form = '{"x": 1, "y": 2, "color": "red"}'
        raise ValueError(f"{where}: {json.dumps(entry)[:60]} is not of the form {form}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error
