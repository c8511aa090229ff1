"""A finding: one thing that is wrong with a run, where, by how much, and what to do about it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of ``findings.jsonl``."""

    code: str  # a section of docs/faults.md
    severity: Literal["fault", "note"]  # training is being harmed, or worth a look
    step: int  # optimizer steps that were done when it was found; 0 before training
    where: str  # the layer, file, split, loss or network
    value: float | str  # what was measured
    limit: float | str  # what it should have kept to
    advice: str  # one or two sentences to act on

    @property
    def is_fault(self) -> bool:
        return self.severity == "fault"

    def line(self) -> str:
        """One line of JSON; numbers that JSON does not know (NaN, infinity) become text."""
        return json.dumps({name: _to_json(value) for name, value in asdict(self).items()}, ensure_ascii=False)

    def message(self) -> str:
        """One line for people."""
        measured = f"{rounded(self.value)} (limit {rounded(self.limit)})"
        return f"{self.severity.upper()} {self.code} at step {self.step}, {self.where}: {measured}. {self.advice}"


def append_findings(path: Path, findings: list[Finding]) -> None:
    """Add findings to a ``findings.jsonl``; creates the file even when there are none."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(finding.line() + "\n" for finding in findings)


def read_findings(path: Path) -> list[Finding]:
    """All findings of a ``findings.jsonl``, oldest first."""
    return [Finding(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def rounded(value: float | str) -> str:
    """A measured value or limit for people."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _to_json(value: float | str) -> float | str:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value
