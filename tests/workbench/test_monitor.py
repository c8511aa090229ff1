"""Which way a monitored metric is better, and what is named where it is not logged."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics import PeakSignalNoiseRatio

from tests.workbench.toys import OneWeight, quiet_trainer
from workbench.callbacks.checkpoints import Checkpoints, EarlyStopping
from workbench.errors import UserError
from workbench.monitor import monitor_mode

LOGGED = {"val/loss": (3.0, 1.0, 2.0, 2.5), "val/psnr": (20.0, 30.0, 25.0, 24.0)}  # both are best at step 2


class Model(OneWeight):
    """One step an epoch, and what it logs at each validation."""

    def __init__(self) -> None:
        super().__init__()
        self.val_psnr = PeakSignalNoiseRatio()

    def training_step(self, batch, batch_idx):
        self.log("train/loss", 1.0)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        values = {key: values[self.current_epoch] for key, values in LOGGED.items()}
        self.log_dict({**values, "val/psnr_baseline": 20.0, "lr-SGD": 0.1, "grad/norm": 1.0})


def fit(folder, *callbacks) -> L.Trainer:
    trainer = quiet_trainer(*callbacks, max_epochs=4, default_root_dir=folder)
    trainer.fit(Model(), *(DataLoader([torch.zeros(1)], batch_size=None) for _ in range(2)))
    return trainer


@pytest.mark.parametrize("monitor", LOGGED)
def test_the_best_follows_from_the_metric(tmp_path, monitor):
    trainer = fit(tmp_path, Checkpoints(monitor), EarlyStopping(monitor, patience=2, min_delta=0.1))
    best = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert best["global_step"] == 2
    stopping = trainer.early_stopping_callback
    assert (stopping.stopped_epoch, float(stopping.best_score)) == (3, LOGGED[monitor][1])


LOWER = ("val/loss", "val_loss", "val/abs_error", "val/mae", "test/RMSE", "val/lpips", "fid")
HIGHER = ("val/psnr", "val_psnr", "val/accuracy", "val/glossy")


@pytest.mark.parametrize("monitor", [*LOWER, *HIGHER])
def test_the_mode_by_metric_and_name(monitor):
    mode = "min" if monitor in LOWER else "max"
    assert monitor_mode("checkpoint", monitor, None, Model()) == mode
    assert monitor_mode("checkpoint", monitor, mode, Model()) == mode


def test_a_mode_counts_unless_it_contradicts_the_metric():
    assert monitor_mode("checkpoint", "val/score", "min", Model()) == "min"
    for monitor, mode in (("val/psnr", "min"), ("val/loss", "max")):
        with pytest.raises(UserError, match=rf"^early_stopping\.mode is {mode}, but .* values of {monitor} are better"):
            monitor_mode("early_stopping", monitor, mode, Model())


@pytest.mark.parametrize("callback", [Checkpoints, EarlyStopping])
def test_a_misspelled_metric_names_those_of_the_validation(tmp_path, callback):
    with pytest.raises(UserError) as caught:
        fit(tmp_path, callback("val/pnsr"))
    key = {Checkpoints: "checkpoint.monitor", EarlyStopping: "early_stopping.monitor"}[callback]
    expected = f"{key} is 'val/pnsr', which no validation logs.\nLogged, the nearest first: val/psnr, val/loss.\n"
    assert str(caught.value) == f"{expected}Set --{key} val/psnr"
