"""What a run prints when it is over, or was stopped."""

from __future__ import annotations

import shlex
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from workbench.callbacks.checkpoints import SNAPSHOTS, Checkpoints
from workbench.loggers import upload_command
from workbench.report import print_scores
from workbench.run import Run
from workbench.sharding import is_sharded


def summarize(run: Run, trainer: Trainer, scores: dict[str, float], best: Path | None) -> None:
    """Print the scores of a training run, and where to find things.

    Args:
        run: The run.
        trainer: Which has trained it.
        scores: Logged values of the checkpoint.
        best: The checkpoint that was tested, unless its weights are shared out: the best, or the newest where no score
            decides.
    """
    untested = is_sharded(trainer)
    kind = "best" if any(c.monitor for c in trainer.callbacks if isinstance(c, Checkpoints)) else "newest"
    facts = {
        "Stopped early": _why_stopped_early(trainer),
        "Run": run.folder,
        f"{kind.capitalize()} checkpoint": best and _short(best),
        "Snapshots": _together(trainer),
        "Samples": _if_there(run.folder / "samples" / "latest.png"),
        "Hint curve": _if_there(run.folder / "hint_curve.png"),
        "Upload to W&B": upload_command(run),
        "Test": best and untested and f"python -m project test --ckpt_path {_short(best)}",
        "Next": best
        and f"python -m project predict --ckpt_path {_short(best)} --input FOLDER --output {run.folder / 'restored'}",
    }
    what = "last validation" if untested else f"{kind} checkpoint"
    print_scores(scores, facts, title=f"{run.name} after {trainer.global_step} steps ({what})")


def _together(trainer: Trainer) -> str | None:
    """The command that lets the run's snapshots answer together."""
    found = [path for c in trainer.callbacks if isinstance(c, Checkpoints) for path in c.snapshot_paths]
    return f"python -m project ensemble --ckpts {_short(found[0].parent) / SNAPSHOTS}" if len(found) > 1 else None


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def how_to_go_on(run: Run | None, requeued: bool = False) -> list[str]:
    """The command that goes on with a stopped run, as lines to print; none where nothing was saved."""
    if run is None or not run.first or not run.checkpoints:
        return []
    if requeued:
        return [f"The job is requeued and goes on by itself in {run.folder}."]
    where = [] if run.root == Path("runs") else ["--runs_dir", str(run.root)]
    words = ["fit", "--name", run.name, "--resume", run.version, *where]
    return [f"Go on with: python -m project {shlex.join(words)}"]


def _why_stopped_early(trainer: Trainer) -> str | None:
    reasons = [c.stopping_reason_message for c in trainer.callbacks if isinstance(c, EarlyStopping)]
    return next((reason.removesuffix(" Signaling Trainer to stop.") for reason in reasons if reason), None)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
