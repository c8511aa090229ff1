"""What a user asked for in colors, image by image, and which of it is done already."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from project.inference.prediction.colors import read_palette
from project.inference.prediction.hints_file import Hint, read_hints
from project.inference.prediction.jobs import Job


@dataclass(frozen=True)
class Wishes:
    """Hints, palette and size as they were given.

    Attributes:
        hints: The file's points, by the image's name; None where no file was given.
        palette: Colors without places, for every image; None where none were given.
        size: Pixels of the shorter side to color at, 0 for the image's own; None where it was not given.
    """

    hints: dict[str, tuple[Hint, ...]] | None = None
    palette: tuple[Hint, ...] | None = None
    size: int | None = None

    @property
    def are_any(self) -> bool:
        """Whether anything was given that only a network which colors can have a use for."""
        return (self.hints, self.palette, self.size) != (None, None, None)

    def of(self, name: str) -> tuple[Hint, ...]:
        """What one image is colored with."""
        return self.palette or (self.hints or {}).get(name, ())

    def mark(self, name: str) -> str:
        """A short text that is another one where anything asked for is; empty where nothing is."""
        points = self.of(name)
        if not points and self.size is None:
            return ""
        words = json.dumps([bool(self.palette), points, self.size])
        return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def read_wishes(hints: str | None, palette: str | None, size: int | None, jobs: Sequence[Job]) -> Wishes:
    """What the options ask for.

    Raises:
        UserError: The hints file or the palette is not as it must be.
    """
    colors = None if palette is None else read_palette(palette)
    return Wishes(
        hints=None if hints is None else read_hints(hints, jobs),
        palette=None if colors is None else tuple(Hint(0, 0, color) for color in colors),
        size=size,
    )


@dataclass
class Record:
    """The marks of the answers in an output folder: what each was colored with, as far as anything was asked for.

    An answer's time tells whether the image or the checkpoint is newer, not which hints it was made with. A line is
    added after each answer; where one is missing or broken, the image is colored again.

    Attributes:
        path: The file, which is there only where it is needed.
        marks: The last mark of each name.
    """

    path: Path
    marks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, output: Path) -> Record:
        """The record of an output folder, empty where there is none."""
        record = cls(output / ".colored.jsonl")
        try:
            lines = record.path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return record
        for line in lines:
            try:
                name, mark = json.loads(line)
                record.marks[name] = mark
            except (ValueError, TypeError):  # cut off when the machine went down
                continue
        return record

    def fits(self, name: str, mark: str) -> bool:
        """Whether that name's answer was made with what the mark stands for."""
        return self.marks.get(name, "") == mark

    @contextlib.contextmanager
    def writing(self, name: str, mark: str) -> Iterator[None]:
        """While an answer is written its mark is one that nothing fits, in case it is never finished."""
        if self.fits(name, mark):
            yield
            return
        self._add(name, "?")
        yield
        self._add(name, mark)

    def _add(self, name: str, mark: str) -> None:
        self.marks[name] = mark
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, mark]) + "\n")
