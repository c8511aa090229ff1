"""Colors as people write them: "#f80", "#ff8800", "orange", [255, 136, 0]; and palettes of them."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

from workbench.errors import UserError

Color = tuple[int, int, int]
"""Red, green and blue, each from 0 to 255."""

FORMS = '"#ff8800", "#f80", a CSS name such as "orange", or [255, 136, 0]'

_PALETTE_EXAMPLE = (
    'It is a list of colors: --palette "#ff8800,#224466,white", a JSON list of them, '
    "or a file that holds either.\nA color is " + FORMS + "."
)


def parse_color(value: Any) -> Color:
    """One color, from text or a list of three whole numbers.

    Raises:
        ValueError: With a short reason, when it is none.
    """
    if isinstance(value, str):
        return _parse_text(value.strip())
    if isinstance(value, list):
        if len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
            return tuple(value)
        raise ValueError(f"{json.dumps(value)[:60]} is no color: three whole numbers from 0 to 255, red, green, blue")
    raise ValueError(f"{json.dumps(value)[:60]} is no color: {FORMS}")


def _parse_text(text: str) -> Color:
    from PIL import ImageColor

    try:
        color = ImageColor.getrgb(text)
    except ValueError:
        hashed = "#" + text
        if re.fullmatch(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})", hashed):
            hint = f"did you mean {hashed}?"
        elif near := difflib.get_close_matches(text.lower(), ImageColor.colormap, n=1):
            hint = f"did you mean {near[0]}?"
        else:
            hint = FORMS
        raise ValueError(f'"{text[:40]}" is no color: {hint}') from None
    if len(color) != 3:
        raise ValueError(f'"{text}" has a transparency, which a hint cannot have')
    if max(color) > 255:
        raise ValueError(f'"{text}" is no color: its numbers go from 0 to 255')
    return color


def read_palette(text: str) -> tuple[Color, ...]:
    """The colors of ``--palette``: separated by commas, a JSON list, or a file that holds either.

    Raises:
        UserError: It is none of them, is empty, or holds something that is no color.
    """
    source, content = "--palette", text.strip()
    path = Path(content).expanduser()
    if _is_file(path):
        source = f"--palette {path}"
        try:
            content = path.read_text("utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{source} cannot be read as text: {error}.") from error
    elif path.suffix.lower() in (".json", ".txt"):
        raise UserError(f"--palette {path}: there is no such file.\n{_PALETTE_EXAMPLE}")
    parts = _parts(source, content)
    colors, problems = [], []
    for number, part in enumerate(parts, 1):
        try:
            colors.append(parse_color(part))
        except ValueError as error:
            problems.append(f"color {number}: {error}")
    if problems:
        shown = problems[:6] + ([f"... and {len(problems) - 6} more"] if len(problems) > 6 else [])
        raise UserError("\n".join([f"{source} holds what is no color:", *shown, _PALETTE_EXAMPLE]))
    if not colors:
        raise UserError(f"{source} holds no color.\n{_PALETTE_EXAMPLE}")
    return tuple(colors)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a long list is no possible name
        return False


def _parts(source: str, content: str) -> list[Any]:
    if content[:1] not in ("[", "{", '"'):
        # Commas within brackets belong to one color: rgb(255, 136, 0).
        return [part for part in (part.strip() for part in re.split(r"[,;\n](?![^(]*\))", content)) if part]
    try:
        parts = json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{source} is no JSON list: {error.msg} (line {error.lineno}, column {error.colno}).\n{_PALETTE_EXAMPLE}"
        ) from error
    if isinstance(parts, str):
        return [parts]
    if not isinstance(parts, list):
        raise UserError(f"{source} is not a list of colors.\n{_PALETTE_EXAMPLE}")
    if len(parts) == 3 and all(type(part) is int for part in parts):
        return [parts]  # one color
    return parts
