"""What the rest of the tests leaves out of how workbench uses the insides of Lightning."""

from __future__ import annotations

import subprocess
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from tests.workbench.toys import OneWeight, quiet_trainer, read_rows
from workbench import lightning_private as private
from workbench.callbacks.resume import ExactResume


class Model(OneWeight):
    """Logs the same number in every third batch."""

    def training_step(self, batch, batch_idx):
        if batch_idx % 3 == 0:
            self.log("now_and_then", torch.tensor(2.0))
        return super().training_step(batch, batch_idx)


def fit(*callbacks, **options):
    quiet_trainer(*callbacks, **options).fit(Model(), DataLoader([torch.zeros(1)] * 8, batch_size=None))


def test_a_value_is_updated_where_it_was_logged_and_not_merely_shown_again():
    values, updated = [None], []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            values.append(trainer.callback_metrics["now_and_then"])
            updated.append(private.was_updated(values[-1], values[-2]))

    fit(Look())
    assert updated == [True, False, False, True, False, False, True, False]


@pytest.mark.parametrize(("callbacks", "steps"), [([], [*range(8)]), ([ExactResume()], [0, 3, 6])])
def test_a_step_writes_only_what_it_has_logged_itself(tmp_path, callbacks, steps):
    """Lightning alone repeats the value of step 0 in the rows of steps 1 and 2."""
    fit(*callbacks, logger=CSVLogger(tmp_path, name="", version=""), log_every_n_steps=1)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [int(row["step"]) for row in rows if row["now_and_then"]] == steps


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
