"""Where a run is taken up again: the newest checkpoint that is whole, and what its configuration was."""

from __future__ import annotations

import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.arguments import differences
from workbench.checkpoint import read_checkpoint
from workbench.errors import UserError
from workbench.run import Run


@dataclass(frozen=True)
class Resumption:
    """Where a run goes on.

    Attributes:
        path: The checkpoint.
        step: Its ``global_step``.
        rows: How many rows of ``metrics.csv`` are older than it; None if it does not say.
    """

    path: Path
    step: int
    rows: int | None


def newest_whole(run: Run) -> Resumption:
    """Find the checkpoint to go on from, and say so where it is not the last one.

    Raises:
        UserError: When none of the run's checkpoints can be read.
    """
    faults = []
    for path in run.checkpoints:
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch itself does not look at the checksums
                    raise ValueError("its checksum is another one")
            content = torch.load(path, map_location="cpu", weights_only=True)
            found = Resumption(path, content["global_step"], content.get("exact_resume", {}).get("rows"))
        except Exception as error:  # the reader of a damaged file stumbles anywhere: IndexError, EOFError, ...
            reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
            faults.append(f"{path} cannot be read, it is damaged or cut short ({reason}).")
            continue
        if faults and run.first:
            print("\n".join([*faults, f"Going on from the one before it: {path}, step {found.step}."]), file=sys.stderr)
        return found
    raise UserError(
        "\n".join(faults) + "\nNo checkpoint of this run can be read, so nothing can be resumed. Start anew, or "
        f"from the best weights: --model.init_args.init_from {run.folder / 'checkpoints' / 'best.ckpt'}"
    )


def compare(checkpoint: str, config: dict[str, Any], tell: bool) -> None:
    """Say where a configuration differs from that of the checkpoint that a run goes on from.

    Args:
        checkpoint: The file.
        config: The configuration now.
        tell: Whether to print what can be changed on the way.

    Raises:
        UserError: For another optimizer or scheduler.
    """
    found = differences(read_checkpoint(checkpoint).config, config)
    for difference in found:
        if re.match(r"model\.\S*(optimizer|scheduler)\S*class_path ", difference):
            raise UserError(
                f"A run goes on with the optimizer and the scheduler that it has: {difference}.\n"
                f"Start a new run from its weights instead: --model.init_args.init_from {checkpoint}"
            )
    if found and tell:
        print("Other than in the checkpoint: " + ", ".join(found[:8]) + (" ..." if len(found) > 8 else ""))
