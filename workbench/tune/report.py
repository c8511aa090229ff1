"""``sweep-report``: what a sweep has found, as a table, charts, sentences and a configuration to train."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeFloat

from workbench.main import PROGRAM
from workbench.parser import read_options
from workbench.tune.space import Values

if TYPE_CHECKING:
    pass

TOP = 20
LEADERS = 10  # whose choices are counted


@dataclass(frozen=True)
class Row:
    """A trial: what it tried, and what came of it."""

    trial: int
    kind: str  # of its round: search, extend, refine, repeat
    values: Values
    score: float | None
    seconds: float = 0.0
    parameters: int | None = None
    epochs: int | None = None
    steps: int | None = None
    run: str = ""
    reason: str = ""
    curve: list[list[float]] = field(default_factory=list)  # step, seconds, objective


def main(argv: list[str]) -> int:
    """Run ``sweep-report``."""
    from workbench.tune.study import load_study

    parser = ArgumentParser(
        prog=f"python -m {PROGRAM.name} sweep-report",
        description="What a sweep has found so far: table, charts and best configuration.",
        exit_on_error=False,
    )
    parser.add_argument("study", type=str, help="name of the study")
    parser.add_argument("--runs_dir", type=str, default="runs", help="folder of all runs")
    parser.add_argument("--storage", type=str | None, default=None, help="database URL, where the sweep had one")
    parser.add_argument(
        "--smoothing", type=NonNegativeFloat, default=0.0, help="of the curves, such as 0.8; 0 for none"
    )
    options = read_options(parser, argv[1:])
    folder = Path(options.runs_dir) / options.study
    print(write(load_study(options.storage, options.study, folder), folder, options.smoothing))
    return 0
