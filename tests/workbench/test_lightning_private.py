"""Fails first when a new version of Lightning changes what workbench uses of its insides."""

from __future__ import annotations

import csv
import subprocess
from collections import defaultdict
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from workbench import lightning_private as private
from workbench.callbacks.resume import ExactResume


class Model(L.LightningModule):
    """Logs the same number in every third batch; may step two optimizers in each."""

    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = optimizers == 1
        self.weight = nn.Parameter(torch.zeros(optimizers))

    def training_step(self, batch, batch_idx):
        if batch_idx % 3 == 0:
            self.log("now_and_then", torch.tensor(2.0))
        if self.automatic_optimization:
            return self.weight.sum()
        for optimizer in self.optimizers():
            optimizer.step()
        return None

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in self.weight]


class Look(L.Callback):
    """What the functions say in each batch: name -> values."""

    def __init__(self) -> None:
        self.known, self.seen = None, defaultdict(list)

    def on_train_batch_end(self, trainer, *_):
        for name in ("steps_done", "batches_done", "is_accumulating", "logs_now"):
            self.seen[name].append(getattr(private, name)(trainer))
        value = trainer.callback_metrics["now_and_then"]
        self.seen["was_updated"].append(private.was_updated(value, self.known))
        self.known = value


def fit(model, *callbacks, logger=False, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"max_epochs": 1, "accelerator": "cpu", **quiet, **options}
    trainer = L.Trainer(callbacks=list(callbacks), logger=logger, **options)
    trainer.fit(model, DataLoader([torch.zeros(1)] * 8, batch_size=None))
    return trainer


def test_steps_and_batches():
    look = Look()
    trainer = fit(Model(), look, max_epochs=2, log_every_n_steps=4)
    assert look.seen["steps_done"] == list(range(16)) and private.steps_done(trainer) == 16
    assert look.seen["batches_done"] == [*range(8), *range(8)]
    assert look.seen["logs_now"] == [False, False, False, True] * 4
    assert look.seen["was_updated"] == [n % 8 % 3 == 0 for n in range(16)], "logged, not merely shown again"

    look = Look()
    fit(Model(), look, accumulate_grad_batches=3)
    assert look.seen["is_accumulating"] == [True, True, False, True, True, False, True, False]
    assert look.seen["steps_done"] == [0, 0, 0, 1, 1, 1, 2, 2]

    trainer = fit(Model(optimizers=2), Look())
    assert (private.steps_done(trainer), trainer.global_step) == (8, 16), "a batch with two optimizers is one step"


@pytest.mark.parametrize(("callbacks", "steps"), [([], [*range(8)]), ([ExactResume()], [0, 3, 6])])
def test_a_step_writes_only_what_it_has_logged_itself(tmp_path, callbacks, steps):
    """Lightning alone repeats the value of step 0 in the rows of steps 1 and 2."""
    fit(Model(), *callbacks, logger=CSVLogger(tmp_path, name="", version=""), log_every_n_steps=1)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open(newline="")))
    assert [int(row["step"]) for row in rows if row["now_and_then"]] == steps


def test_options_and_environments(tmp_path):
    strategy = DDPStrategy(find_unused_parameters=True)
    assert private.ddp_options(strategy)["find_unused_parameters"] is True
    trainer = L.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    assert isinstance(private.cluster_environment(trainer), LightningEnvironment)
    assert private.given_hyperparameters() is None
    assert "anonymous" in private.wandb_options(WandbLogger(offline=True, save_dir=tmp_path))


PRIVATE = r"(trainer|fit_loop|epoch_loop|strategy|logger)\._[a-z]|_connector\.|hparams_mixin"
PROJECT = r"^\s*(from|import) (project|examples)\b|import_module\(.project"


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [(PRIVATE, ["workbench", "project", ":!workbench/lightning_private.py"]), (PROJECT, ["workbench"])],
    ids=["private names of Lightning are in one module", "workbench never imports project"],
)
def test_what_no_module_does(pattern, paths):
    command = ["git", "grep", "-nE", pattern, "--", *paths]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True).stdout == ""
