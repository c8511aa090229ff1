"""``predict --hints FILE``: which point of which image has which color, read and checked whole.

The file is JSON, with x and y in pixels of the upright image from its top left corner::

    {"face.png": [{"x": 64, "y": 20, "color": "#ff8800"}, [70, 90, "pink"]],
     "*": [[5, 5, "white"]]}

Names are relative to the input folder; ``*`` stands for every image without an entry of its own; for a single image
the list alone will do.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from project.inference.prediction.colors import Color, parse_color
from workbench.errors import UserError

if TYPE_CHECKING:  # it brings Pillow and more, which `--help` need not wait for
    from project.inference.prediction.jobs import Job

EXAMPLE = '{"face.png": [{"x": 64, "y": 20, "color": "#ff8800"}, [70, 90, "pink"]], "*": [[5, 5, "white"]]}'

EVERY = "*"
SHOWN = 7
MOST_PIXELS = 1e9


class Hint(NamedTuple):
    """One point that a person gave the color of.

    Attributes:
        x: Column in pixels of the upright image, from 0.
        y: Row, likewise.
        color: Red, green and blue, 0 to 255.
    """

    x: float
    y: float
    color: Color


def read_hints(path: str | Path, jobs: Sequence[Job]) -> dict[str, tuple[Hint, ...]]:
    """The hints of each image, for the images that have any.

    Raises:
        UserError: The file is missing or no JSON; or all at once what is wrong in it: names of no image, points
            outside their image, colors that are none, entries of another form.
    """
    path = Path(path).expanduser()
    content, problems = _read(path)
    names = [job.name for job in jobs]
    if isinstance(content, list):
        if len(jobs) != 1:
            raise UserError(
                f"--hints {path} is a list, which will do for a single image, and there are {len(jobs)}.\n"
                f"Name the images, or * for all of them: {EXAMPLE}"
            )
        content = {names[0]: content}
    if not isinstance(content, dict):
        raise UserError(f"--hints {path} holds no hints: it must be of this form:\n{EXAMPLE}")
    entries: dict[str, list[tuple[int, Hint]]] = {}
    for key, value in content.items():
        name = _find(key, names)
        if name is None:
            problems.append(_unknown(key, names))
        elif name in entries:
            problems.append(f'"{key}": the same image as another entry')
        entries[name or key] = _points(key, value, problems)
    for job in jobs:
        if points := entries.get(job.name, entries.get(EVERY)):
            _check_inside(job, EVERY if job.name not in entries else job.name, points, problems)
    if problems:
        raise _refusal(path, problems)
    hints = {name: tuple(hint for _, hint in points) for name, points in entries.items()}
    found = {name: hints.get(name, hints.get(EVERY, ())) for name in names}
    return {name: points for name, points in found.items() if points}


def _read(path: Path) -> tuple[Any, list[str]]:
    """The file's content, and the names that it holds twice, of which JSON's reader would keep the last alone."""
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice.extend(f'"{key}" is there twice' for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(pairs)

    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, [one.name for one in path.parent.glob("*")], n=1)
        hint = f"\nDid you mean {path.parent / near[0]}?" if near else ""
        raise UserError(f"--hints {path}: there is no such file.{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--hints {path} cannot be read as text: {error}.") from error
    try:
        return json.loads(text, object_pairs_hook=once), twice
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1].strip()[:80] if text.strip() else ""
        raise UserError(
            f"--hints {path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
            + (f":\n  {line}" if line else ".")
            + f"\nThe form: {EXAMPLE}"
        ) from error
    except (RecursionError, ValueError) as error:  # nested without end, or numbers of thousands of digits
        raise UserError(f"--hints {path} holds no hints: it must be of this form:\n{EXAMPLE}") from error


def _find(key: str, names: list[str]) -> str | None:
    """The image that a key means; a path as Windows or a shell writes it counts as well."""
    if key == EVERY or key in names:
        return key
    plain = key.replace("\\", "/").removeprefix("./")
    return plain if plain in names else None


def _unknown(key: str, names: list[str]) -> str:
    alike = [name for name in names if name.rpartition("/")[2] == key.rpartition("/")[2]]
    near = alike or difflib.get_close_matches(key, names, n=1, cutoff=0.4)
    return f'"{key[:80]}" is none of the images' + (f'; did you mean "{near[0]}"?' if near else "")


def _points(key: str, value: Any, problems: list[str]) -> list[tuple[int, Hint]]:
    """The entries of one image that are in order, with their numbers."""
    if not isinstance(value, list):
        problems.append(f'"{key[:80]}": must be a list of points, [{{"x": ..., "y": ..., "color": ...}}, ...]')
        return []
    points = []
    for number, entry in enumerate(value, 1):
        try:
            points.append((number, _point(entry)))
        except ValueError as error:
            problems.append(f"{_where(key, number)}: {error}")
    return points


def _point(entry: Any) -> Hint:
    if isinstance(entry, dict):
        given = {"color" if key == "color" else key: value for key, value in entry.items()}
        missing = [key for key in Hint._fields if key not in given]
        unknown = [key for key in given if key not in Hint._fields]
        if missing or unknown:
            raise ValueError(
                " and ".join(
                    [f"{key} is missing" for key in missing] + [f'there is no key "{key[:30]}"' for key in unknown]
                )
            )
        x, y, color = (given[key] for key in Hint._fields)
    elif isinstance(entry, list) and len(entry) == 3:
        x, y, color = entry
    else:
        raise ValueError(f'{json.dumps(entry)[:40]} is no point: {{"x": 10, "y": 20, "color": "red"}} or [x, y, color]')
    for name, value in (("x", x), ("y", y)):
        if type(value) not in (int, float) or not abs(value) < MOST_PIXELS:  # JSON as Python reads it knows NaN
            raise ValueError(f"{name} is {json.dumps(value)[:40]}, which is no number of pixels")
    return Hint(x, y, parse_color(color))


def _check_inside(job: Job, key: str, points: list[tuple[int, Hint]], problems: list[str]) -> None:
    from project.inference.prediction.pictures import size_of

    size = size_of(job.source)
    if size is None:
        return  # a broken image, which is reported with its reason when its turn comes
    width, height = size
    whose = f"outside {job.name}" if key == EVERY else "outside the image"
    problems.extend(
        f"{_where(key, number)}: x {hint.x:g}, y {hint.y:g} is {whose} of {width} x {height} pixels"
        for number, hint in points
        if not (0 <= hint.x < width and 0 <= hint.y < height)
    )


def _where(key: str, number: int) -> str:
    return f'"{key[:80]}", point {number}'


def _refusal(path: Path, problems: list[str]) -> UserError:
    count = f"{len(problems)} mistakes" if len(problems) > 1 else "a mistake"
    more = [f"  ... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    shown = [f"  {problem}" for problem in problems[:SHOWN]]
    return UserError("\n".join([f"--hints {path} has {count}:", *shown, *more, f"The form: {EXAMPLE}"]))
