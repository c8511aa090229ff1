"""A value counts once, in Lightning's own bookkeeping too, however often it is shown."""

from __future__ import annotations

import csv

import lightning as L
import lightning.pytorch.loggers
import torch
from torch import nn
from torch.utils.data import DataLoader
from workbench.callbacks.logged import ClearStepMetrics, was_updated


class Now(L.LightningModule):
    """Logs the same number at every third step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        if batch_idx % 3 == 0:
            self.log("train/now_and_then", torch.tensor(2.0))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Look(L.Callback):
    def __init__(self) -> None:
        self.known, self.new = None, []

    def on_train_batch_end(self, trainer, *_):
        value = trainer.callback_metrics["train/now_and_then"]
        if was_updated(value, self.known):
            self.new.append(trainer.global_step)
        self.known = value


def test_a_value_is_new_when_it_is_logged_and_not_when_it_is_shown_again(tmp_path):
    look = Look()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[look],
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        **quiet,
    )
    trainer.fit(Now(), DataLoader([torch.zeros(1)] * 8, batch_size=None))
    assert look.new == [1, 4, 7, 9, 12, 15]


def test_a_step_writes_what_it_has_logged_itself(tmp_path):
    """Without the callback the value of step 0 would stand in the rows of steps 1 and 2 as well."""
    logger = L.pytorch.loggers.CSVLogger(tmp_path, name="", version="")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"logger": logger, "log_every_n_steps": 1, "max_epochs": 1, "accelerator": "cpu"}
    L.Trainer(callbacks=[ClearStepMetrics()], **options, **quiet).fit(
        Now(), DataLoader([torch.zeros(1)] * 8, batch_size=None)
    )
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open(newline="")))
    assert [row["step"] for row in rows if row["train/now_and_then"]] == ["0", "3", "6"]


def test_values_of_other_kinds():
    assert was_updated(1.0, None) and not was_updated(None, None)
    value = torch.tensor(1.0)
    assert was_updated(value, None) and not was_updated(value.detach(), value) and was_updated(value.clone(), value)
