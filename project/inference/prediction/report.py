"""What became of the images, and how it is told at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SHOWN = 20
"""So many failures are told on the terminal; a longer list goes into a file."""


@dataclass
class Report:
    """What became of the images.

    Attributes:
        done: How many were restored or colored.
        skipped: How many were there already.
        failed: Why, by name.
        notes: What a user should know, and of how many images.
        word: What was done to them.
    """

    done: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    word: str = "restored"

    def tell(self, output: Path) -> None:
        """Print it; more failures than fit go into a file of the output folder."""
        for note, count in self.notes.items():
            print(f"Note: {note} ({count} {'picture' if count == 1 else 'pictures'}).")
        lines = [f"{name}: {reason}" for name, reason in self.failed.items()]
        for line in lines[:SHOWN]:
            print(f"Failed: {line}")
        if len(lines) > SHOWN:
            listed = output / "failed.txt"
            listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"... and {len(lines) - SHOWN} more, all in {listed}")
        skipped = f"skipped {self.skipped}" + (" (done before; --overwrite true)" if self.skipped else "")
        print(f"{self.word.capitalize()} {self.done}, {skipped}, failed {len(self.failed)}, in {output}")
