"""What is written down about a run before its first step: configuration, versions, commit, number of parameters."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from workbench.checkpoint_io import atomic_write_text
from workbench.run import Run, point_latest_at

PACKAGES = ("lightning", "torch", "torchvision", "torchmetrics", "albumentations", "wandb", "numpy", "pillow")


class Record(SaveConfigCallback):
    """Writes ``config.yaml`` and ``environment.json`` into the run's folder, and both to every logger.

    The whole configuration travels in each checkpoint too (key ``config``, YAML text), so that a checkpoint alone is
    enough to test with and to predict.
    """

    def __init__(self, parser: Any, config: Any, run: Run | None = None, **kwargs: Any) -> None:
        # Lightning's own way dies on the existing file of a resumed run, and with W&B writes beside the run's folder.
        super().__init__(parser, config, save_to_log_dir=False, **kwargs)
        self.run = run
        kept = config.clone()
        for key in ("resume", "ckpt_path"):
            if key in kept:
                kept[key] = None
        self.text = parser.dump(kept, skip_none=False, skip_link_targets=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet: a mistake that shows while data and model are set up leaves no trace of a run."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save_config(trainer, pl_module, "fit")
        if self.run is not None and trainer.is_global_zero:
            point_latest_at(self.run)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self.save_config(trainer, pl_module, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save_config(trainer, pl_module, "test")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write both files and tell the loggers, once."""
        log_dir = trainer.log_dir  # a broadcast: every process asks, and as often as the others
        if self.already_saved or log_dir is None:
            return
        self.already_saved = True
        if not trainer.is_global_zero:
            return
        folder = Path(log_dir)
        atomic_write_text(folder / "config.yaml", self.text)
        facts = environment()
        atomic_write_text(folder / "environment.json", json.dumps(facts, indent=2) + "\n")
        parameters = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        for logger in trainer.loggers:
            logger.log_hyperparams({**yaml.safe_load(self.text), "parameters": parameters, "environment": facts})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.text


def environment() -> dict[str, Any]:
    """Versions, platform, command and git commit (``-dirty`` behind it when there are changes not committed)."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "command": " ".join(["python -m project", *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
    }


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("-dirty" if changes.stdout.strip() else "")
