"""What the tuning commands measure: real training steps of a copy of the model, which leave nothing behind."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.optim import Optimizer

from workbench.callbacks.checkpoints import get_rng_state, set_rng_state
from workbench.callbacks.clipping import GradientClipping
from workbench.check import Builder
from workbench.distributed import make_trainer
from workbench.errors import UserError
from workbench.findings.checks.trial import SILENT, full_rate, stop_schedulers
from workbench.main import PROGRAM
from workbench.parser import expand_args
from workbench.watch.model_info import network_name

KEPT = (
    *("accelerator", "precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("deterministic", "benchmark", "limit_train_batches", "overfit_batches", "use_distributed_sampler"),
)
"""Settings of the trainer that a step depends on."""
PROBED, EPOCHS = 6, 200  # batches of each epoch, and epochs, in which an optimizer may be stepped first
SECONDS = 60.0  # the same in time
ENDLESS = 10**9  # steps; schedulers such as OneCycleLR refuse a run without an end


@dataclass
class Task:
    """A model and its data, as they are before the first step, and how a run would train them."""

    model: LightningModule
    data: LightningDataModule | None  # None: the model has the loaders
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the trainer
    clipping: GradientClipping | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  # resolved, as plain values; empty in a script

    def run(self, callback: Callback, **settings: Any) -> None:
        """Train a copy of the model until the callback sets ``trainer.should_stop``: no validation, nothing written.

        The model and all random states are the same afterwards.
        """
        clipping = [] if self.clipping is None else [copy.deepcopy(self.clipping)]
        options = {key: self.settings[key] for key in KEPT if key in self.settings} | settings | SILENT
        options |= {"devices": 1, "max_epochs": -1, "max_steps": ENDLESS, "limit_val_batches": 0}
        options |= {"callbacks": [callback, *clipping], "num_sanity_val_steps": 0, "log_every_n_steps": ENDLESS}
        if not getattr(self.data, "use_distributed_sampler", True):
            options["use_distributed_sampler"] = False
        with warnings.catch_warnings(action="ignore"):
            trainer = make_trainer(lambda: Trainer(**options), options)
            device, before = trainer.strategy.root_device, getattr(self.data, "trainer", None)
            states = get_rng_state(device)
            try:
                trainer.fit(copy.deepcopy(self.model), datamodule=self.data)
            finally:
                set_rng_state(states, device)
                if self.data is not None:
                    self.data.trainer = before


class Probe(Callback):
    """Finds the optimizers, and the first epochs in which each, and all of them, are stepped."""

    def __init__(self) -> None:
        self.networks: list[str] = []
        self.configured: list[float] = []
        self.first: dict[int, int] = {}  # by an optimizer's number
        self.common: int | None = None
        self.epochs = 0
        self._stepped: set[int] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stop_schedulers(trainer)
        self._since = time.monotonic()
        self.networks = [network_name(pl_module, optimizer) for optimizer in trainer.optimizers]
        if len(set(self.networks)) < len(self.networks):
            self.networks = [f"{name} {number}" for number, name in enumerate(self.networks)]
        self.configured = [configured_rate(optimizer) for optimizer in trainer.optimizers]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stepped, self.epochs = set(), self.epochs + 1

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        number = next(n for n, other in enumerate(trainer.optimizers) if other is optimizer)
        self._stepped.add(number)
        self.first.setdefault(number, trainer.current_epoch)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if len(self._stepped) == len(self.networks):
            self.common = trainer.current_epoch
        late = self.epochs > EPOCHS or time.monotonic() - self._since > SECONDS
        trainer.should_stop |= self.common is not None or late


def configured_rate(optimizer: Optimizer) -> float:
    """What a user would call the optimizer's learning rate: the one it was made with, if a group has it, else the
    highest of its groups."""
    rates = [full_rate(group) for group in optimizer.param_groups if "lr" in group]
    if not rates:
        raise UserError(f"{type(optimizer).__name__} has no learning rate: there is nothing to tune.")
    given = optimizer.defaults.get("lr")
    if given is not None and any(math.isclose(rate, given) for rate in rates):
        return float(given)
    return max(rates)


def probe_optimizers(task: Task) -> Probe:
    """What a model's optimizers are, and when they are stepped; UserError where there is none, or no batch."""
    probe = Probe()
    task.run(probe, limit_train_batches=PROBED)
    if not probe.networks:
        raise UserError("The model has no optimizer, or the data have no training batch: there is nothing to tune.")
    return probe


def start_in_epoch(trainer: Trainer, epoch: int) -> None:
    """In ``on_train_start``: let the model train as in this epoch."""
    now = trainer.fit_loop.epoch_progress.current
    now.ready = now.started = now.processed = now.completed = epoch


def build_task(command: str, words: Sequence[str]) -> tuple[Task, Namespace]:
    """The task of a command line, built as ``fit`` would, and the whole configuration."""
    built = Builder(expand_args(["fit", *words]), command=command)
    config, clipping = built.config[built.subcommand], built.config_init[built.subcommand].gradient_clipping
    used = clipping if clipping.enabled else None
    return Task(built.model, built.datamodule, config.trainer, used, built.plain_config()), config


def option_parser(command: str, description: str) -> ArgumentParser:
    """A parser for a tuning command's own options."""
    program = f"python -m {PROGRAM.name}"
    usage = f"{program} {command} --config FILE [options] [--key value ...]"
    text = f"{description} Every key that fit takes may be given as well: {program} fit --help"
    return ArgumentParser(prog=f"{program} {command}", usage=usage, description=text, exit_on_error=False)
