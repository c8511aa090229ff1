"""Data module and model of a configuration, as ``fit`` would have them at its first step."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from project.data import ImageDataModule
from project.data.cache import Cache
from project.data.exclusions import read_exclusions
from project.data.index import validate_images
from project.data.loader import usable_cores
from project.data.sources import find_entries
from workbench.cli import CommandLine
from workbench.errors import UserError
from workbench.findings.checks import Subject
from workbench.machines import make_trainer
from workbench.run import Run, start_run

UNUSED = (
    "logger",
    "callbacks",
    "plugins",
    "profiler",
    "fast_dev_run",
    "barebones",
    "default_root_dir",
    "model_registry",
)
"""Of the trainer's settings: what says how a run is watched and kept."""
ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}


class _Ready(Exception):
    """Everything is there for the first step."""


class _Halt(Callback):
    """Ends a fit before its first step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise _Ready


def halting_trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    """A trainer whose ``fit`` sets everything up, and leaves no trace, up to the first step."""
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(**{**settings, **quiet, "logger": False, "callbacks": [_Halt(), *callbacks]})


class Building(CommandLine):
    """A fit's command line that builds everything, and does not train."""

    def before_instantiate_classes(self) -> None:
        """Refuse a training that has begun."""
        config = self.config[self.subcommand]
        if config.ckpt_path is not None or config.get("resume"):
            raise UserError(
                "'check' looks at a model before its first step: leave --ckpt_path and --resume out.\n"
                "To start from a checkpoint's weights: --model.init_args.init_from FILE."
            )
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.subcommand]
        settings = {key: value for key, value in config.trainer.items() if key not in UNUSED} | ONE_PROCESS
        clipping = self.config_init[self.subcommand].gradient_clipping
        return make_trainer(lambda: halting_trainer(clipping, **settings), settings)

    def open_run(self) -> Run:
        """The folder of this check: ``runs/NAME/VERSION-check``."""
        config = self.config[self.subcommand]
        self.run = start_run(config.runs_dir, config.name, "check")
        return self.run

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: what is built is looked at."""

    def plain_config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return yaml.safe_load(self._parser(self.subcommand).dump(self.config[self.subcommand], skip_check=True))


def prepare(
    model: LightningModule, data: LightningDataModule, trainer: Trainer, config: dict[str, Any] | None = None
) -> Subject:
    """Let a trainer set up data and model up to the first step.

    Args:
        model: As it was built.
        data: Likewise.
        trainer: Of :func:`halting_trainer`.
        config: The resolved configuration as plain values.

    Raises:
        UserError: What ``fit`` would raise; files that cannot be used are told as a finding instead, as long as enough
            good ones are left.
    """
    pristine = copy.deepcopy(model)
    bad, skips = [], True
    if isinstance(data, ImageDataModule):
        bad, skips = bad_files(data), data.settings.on_bad_image == "skip"
        if bad:
            data.settings = replace(data.settings, on_bad_image="skip")
        data.pairs.check = lambda *_: None  # all-gray images are a finding here
    try:
        trainer.fit(model, datamodule=data)
    except _Ready:
        pass
    except UserError as error:
        if not bad:
            raise
        raise TooFewLeft(bad) from error
    model.to(trainer.strategy.root_device)
    return Subject(model, data, trainer, list(trainer.optimizers), pristine, bad, skips, config or {})


class TooFewLeft(Exception):
    """Without the bad files there is nothing to look at; the argument lists them."""


def bad_files(data: ImageDataModule) -> list[str]:
    """ "NAME: reason" of each file that cannot be used; the same pass over the files as in a fit, and cached."""
    settings, cache = data.settings, Cache(data.cache_dir)
    settings.check()
    entries = find_entries(settings.source, settings.root, settings.target_root, cache)
    excluded = read_exclusions(settings.exclude, entries) if settings.exclude else set()
    workers = usable_cores() if data.num_workers is None else max(data.num_workers, 1)
    _, bad = validate_images(entries, cache=cache, min_size=settings.min_size, workers=workers, excluded=excluded)
    return bad
