"""What is recorded about a run before its first step: configuration, versions, commit, batch size, parameters."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from workbench.checkpoint import atomic_write_text
from workbench.errors import UserError
from workbench.run import Run, point_latest_at


class RunMetadata(SaveConfigCallback):
    """Write ``config.yaml`` and ``environment.json`` into the run's folder and to every logger, and the configuration
    into each checkpoint (key ``config``, YAML), so that a checkpoint alone is enough to test and to predict."""

    def __init__(self, parser: Any, config: Any, run: Run | None = None, **kwargs: Any) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **kwargs)
        self.run = run
        kept = config.clone()
        for key in ("resume", "ckpt_path"):
            if key in kept:
                kept[key] = None
        self.text = parser.dump(kept, skip_none=False, skip_link_targets=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet: an error while data and model are set up leaves no trace of a run."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save_config(trainer, pl_module)
        if self.run is not None and trainer.is_global_zero:
            point_latest_at(self.run)
        report_batch_size(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save_config(trainer, pl_module)

    on_test_start = on_validation_start

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str = "") -> None:
        log_dir = trainer.log_dir  # a broadcast: every process asks, and as often as the others
        if self.already_saved or log_dir is None:
            return
        self.already_saved = True
        if not trainer.is_global_zero:
            return
        parameters = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        facts = environment() | {"parameters": parameters}
        atomic_write_text(Path(log_dir) / "config.yaml", self.text)
        atomic_write_text(Path(log_dir) / "environment.json", json.dumps(facts, indent=2) + "\n")
        for logger in trainer.loggers:
            logger.log_hyperparams({**yaml.safe_load(self.text), "environment": facts, "parameters": parameters})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.text


def report_batch_size(trainer: Trainer) -> None:
    """Print a step's batch, if it is more than the loader's; UserError where an epoch has none."""
    loader, processes, accumulated = trainer.train_dataloader, trainer.world_size, trainer.accumulate_grad_batches
    batch = getattr(loader, "batch_size", None) or getattr(trainer.datamodule, "batch_size", None)
    if batch is None or processes * accumulated == 1:
        return
    samples = len(loader.sampler) if hasattr(getattr(loader, "sampler", None), "__len__") else math.inf
    if processes > 1 and samples < batch:
        raise UserError(
            f"An epoch has {samples} samples for each of the {processes} processes, less than a batch of {batch}.\n"
            f"Use --data.batch_size {max(1, samples)}, fewer processes, or more samples in an epoch."
        )
    if trainer.is_global_zero:
        factors = {"processes": processes, "accumulated": accumulated}
        text = "".join(f" x {number} {name}" for name, number in factors.items() if number > 1)
        total = batch * processes * accumulated
        print(f"Batch: {batch}{text} = {total} samples a step; the learning rate is not scaled.")


def environment() -> dict[str, Any]:
    """Versions, platform, command and git commit (``-dirty`` behind it if there are uncommitted changes)."""
    return {
        "command": " ".join(["python -m project", *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {found.name: found.version for found in distributions()},
    }


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(command, cwd=Path(__file__).parent, text=True, stderr=subprocess.DEVNULL).strip()
    return None
