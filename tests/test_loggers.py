from __future__ import annotations

import csv

import pytest

from project.loggers import MetricsCSV, _wandb_mode, make_loggers, upload_command
from project.runs import start_run


def _rows(run) -> list[dict[str, str]]:
    with (run.folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_run_keeps_what_was_logged_before_its_checkpoint(tmp_path):
    run = start_run(tmp_path, "denoise")
    logger = MetricsCSV(run)
    for step in range(5):
        logger.log_metrics({"train/loss": 1.0 - step / 10}, step)
    logger.save()

    resumed = MetricsCSV(run, resume_step=3)
    resumed.log_metrics({"train/loss": 0.5, "val/psnr": 20.0}, 3)
    resumed.save()
    assert [int(row["step"]) for row in _rows(run)] == [0, 1, 2, 3]
    assert [row["train/loss"] for row in _rows(run)] == ["1.0", "0.9", "0.8", "0.5"]
    assert [row["val/psnr"] for row in _rows(run)] == ["", "", "", "20.0"]


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "x" * 40}, "online"),
        ({"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "off"),
    ],
)
def test_wandb_is_online_only_with_credentials(monkeypatch, variables, mode):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _wandb_mode("auto") == mode
    assert _wandb_mode("off") == "off"


def test_credentials_of_a_netrc_count(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert _wandb_mode("auto") == "online"


def test_wandb_offline_stays_in_the_run_folder_and_names_the_upload(tmp_path):
    run = start_run(tmp_path / "runs", "denoise")
    loggers = make_loggers(run, "offline", tensorboard=True)
    assert [type(logger).__name__ for logger in loggers] == ["MetricsCSV", "WandbLogger", "TensorBoardLogger"]
    for logger in loggers:
        logger.log_metrics({"val/psnr": 20.0}, 1)
    import wandb

    wandb.finish()
    assert list(run.folder.glob("wandb/offline-run-*/*.wandb"))
    assert upload_command(run).startswith("wandb sync ")
    assert list(run.folder.glob("events.out.tfevents*"))
