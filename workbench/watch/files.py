"""Text files that monitors add lines to, in the run's folder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer

from workbench.checkpoint_io import atomic_write_text


class RunFiles:
    """Adds lines to files, and knows how many there are: what a killed run wrote after its last checkpoint is cut off
    when it goes on, since it comes once more.

    Attributes:
        folder: The run's; None where nothing is to be written: without a logger, and on all processes but the first.
        lines: Number of lines in each file.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.lines: dict[str, int] = {}

    def open(self, trainer: Trainer) -> None:
        """Find the folder, and cut off what was written after the checkpoint; takes all processes."""
        folder = trainer.log_dir if trainer.loggers and not trainer.fast_dev_run else None  # all have to ask
        self.folder = Path(folder) if folder is not None and trainer.is_global_zero else None
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, count in self.lines.items():
            found = self.read(name)
            self.lines[name] = min(count, len(found))
            if len(found) > count:
                atomic_write_text(self.folder / name, "".join(found[:count]))

    def read(self, name: str) -> list[str]:
        """The lines of a file, each with its end; none where it is not there."""
        path = self.folder / name if self.folder is not None else None
        return path.read_text(encoding="utf-8").splitlines(keepends=True) if path and path.is_file() else []

    def append(self, name: str, lines: list[str], header: str | None = None) -> None:
        """Add lines to a file; makes it, also when there are none.

        Args:
            name: Of the file.
            lines: Without their ends.
            header: First line of a file that is new.
        """
        if self.folder is None:
            return
        if name not in self.lines:
            self.lines[name] = len(self.read(name))
        if header is not None and self.lines[name] == 0:
            lines = [header, *lines]
        with (self.folder / name).open("a", encoding="utf-8", newline="") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.lines[name] += len(lines)
