"""What a run prints: its results, how to resume it; and what libraries print that no user needs."""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_only

from workbench.main import PROGRAM

if TYPE_CHECKING:
    from workbench.run import Run

NOISE = (
    "is not able to be used in the current environment",  # tips about other devices and loggers
    "does not have many workers",
    "exists and is not empty",
    "The number of training batches",
    "You requested to overfit",  # "enabled shuffling": how our sampler looks to Lightning
    "LightningCLI's args parameter",
    "callbacks used to create the checkpoint",  # the clock of a run with max_time: a test needs none
    "The dirpath has changed",  # a test, and a run from another's checkpoint, have folders of their own
    "isinstance\\(treespec, LeafSpec\\)",
)


def silence_warnings() -> None:
    """Suppress warnings that a user can do nothing about."""
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    # The line of source that a warning comes from means nothing to a user.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for name in ("pytorch.utilities.rank_zero", "pytorch.trainer.connectors.signal_connector", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)


@rank_zero_only
def rank_zero_print(text: str) -> None:
    """Print from rank 0. Not by logging, which a program may turn down without anybody seeing."""
    print(text, flush=True)


def print_scores(scores: Mapping[str, float], facts: Mapping[str, object], title: str) -> None:
    """Print metrics of val and test beside their baseline, and the facts below; where any metric has a baseline, those
    without one are left out."""
    from rich.console import Console
    from rich.table import Table

    splits = [split for split in ("val", "test") if any(key.startswith(f"{split}/") for key in scores)]
    keys = [key for key in scores if key.split("/")[0] in splits and not key.endswith("_baseline")]
    compared = [key for key in keys if f"{key}_baseline" in scores]
    found = {key.split("/", 1)[1] for key in compared or keys}
    metrics = [metric for metric in PROGRAM.headings if metric in found] + sorted(found - PROGRAM.headings.keys())
    table = Table(title=title, title_justify="left")
    table.add_column("")
    endings = ("", "_baseline") if compared else ("",)
    for split in splits:
        table.add_column(split, justify="right", style="bold")
        if compared:
            table.add_column("baseline", justify="right")
    for metric in metrics:
        heading, decimals = PROGRAM.headings.get(metric, (metric, 4))
        cells = [scores.get(f"{split}/{metric}{end}") for split in splits for end in endings]
        table.add_row(heading, *("" if value is None else f"{value:.{decimals}f}" for value in cells))
    if metrics:
        Console(soft_wrap=True).print(table)
    print_facts(facts)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print a line for each fact that has a value."""
    lines = {label: value for label, value in facts.items() if value}
    width = max(map(len, lines), default=0)
    for label, value in lines.items():
        print(f"{label:<{width}}  {value}")


def resume_command(run: Run | None, requeued: bool = False) -> list[str]:
    """The command that resumes a stopped run, as lines to print; none where nothing was saved."""
    if run is None or not run.first or not run.checkpoints:
        return []
    if requeued:
        return [f"The job is requeued and resumes by itself in {run.folder}."]
    folder = [] if run.root == Path("runs") else ["--runs_dir", str(run.root)]
    words = ["fit", "--name", run.name, "--resume", run.version, *folder]
    return [f"Resume with: python -m {PROGRAM.name} {shlex.join(words)}"]
