"""Which images the user wants left out: a text file, or a table such as ``inspect`` writes."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

from project.data.images import Entry
from workbench.errors import UserError

COLUMN = "file"
"""Of a table: the column that holds the names."""
SHOWN = 5


def read_exclusions(file: str, entries: Sequence[Entry]) -> set[str]:
    """The names of the entries that a file lists.

    Args:
        file: A text file, one name a line as in the errors here, or a path; what follows a # is a comment. Or a table
            (CSV) with a column ``file``, such as ``worst.csv`` of ``inspect``: every row of it is left out.
        entries: All that there are.

    Raises:
        UserError: When the file cannot be read, or naming the lines that fit no entry, with the nearest names.
    """
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--data.exclude {file} cannot be read: {error}.") from error
    names = {entry.name for entry in entries}
    by_path = {entry.path: entry.name for entry in entries}

    def find(line: str) -> str | None:
        return line if line in names else by_path.get(str(Path(line).expanduser().absolute()))

    excluded, unknown = set(), []
    rows = _rows(lines)
    for line in map(str.strip, lines if rows is None else rows):
        known = find(line) if line else None
        if known is None and rows is None:  # only now: a name may hold a #
            line = _without_comment(line)
            known = find(line) if line else None
        if known is not None:
            excluded.add(known)
        elif line:
            unknown.append(line)
    if unknown:
        shown = "".join(f"\n  {line}{_nearest(line, names)}" for line in unknown[:SHOWN])
        more = f"\n  ... and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise UserError(f"--data.exclude {file} names {len(unknown)} images that are not there:{shown}{more}")
    return excluded


def _rows(lines: list[str]) -> list[str] | None:
    """The column of names of a table; None where the lines are no table."""
    for separator in ",;\t":  # spreadsheets of some countries write semicolons
        header = next(csv.reader(lines[:1], delimiter=separator), [])
        if COLUMN in header:
            return [row[COLUMN] or "" for row in csv.DictReader(lines, delimiter=separator)]
    return None


def _without_comment(line: str) -> str:
    return "" if line.startswith("#") else line.partition(" #")[0].strip()


def _nearest(line: str, names: set[str]) -> str:
    close = difflib.get_close_matches(line, names, n=1)
    return f" (nearest: {close[0]})" if close else ""
