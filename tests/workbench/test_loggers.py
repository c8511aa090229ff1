from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

import pytest
import wandb

from tests.workbench.toys import read_rows
from workbench.errors import UserError
from workbench.loggers import MetricsCSV, _wandb_mode, finish_wandb, make_loggers, upload_command
from workbench.run import Run, start_run


@pytest.fixture
def run(tmp_path) -> Run:
    return start_run(tmp_path / "runs", "less noise: 50%")


@pytest.fixture
def forgetful() -> Iterator[None]:
    """W&B keeps its settings, with the credentials, for the whole process."""
    wandb.teardown()
    yield
    wandb.teardown()


KEY = {"WANDB_API_KEY": "x" * 40}
OWN = "http://localhost:8080"


@pytest.mark.parametrize(
    ("variables", "machine", "mode"),
    [
        ({}, None, "offline"),
        (KEY, None, "online"),
        ({**KEY, "WANDB_MODE": "offline"}, None, "offline"),
        ({"WANDB_MODE": "disabled"}, None, "off"),
        ({}, "api.wandb.ai", "online"),
        ({}, "api.forge.coreweave.com", "online"),
        ({}, "localhost:8080", "offline"),
        ({"WANDB_BASE_URL": OWN}, "api.wandb.ai", "offline"),
        ({"WANDB_BASE_URL": OWN}, "localhost:8080", "online"),
        ({"settings": OWN}, "localhost:8080", "online"),
        ({"settings": OWN}, "api.wandb.ai", "offline"),
    ],
)
@pytest.mark.usefixtures("forgetful")
def test_wandb_is_online_only_with_credentials_for_its_server(tmp_path, monkeypatch, variables, machine, mode):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if machine is not None:
        (tmp_path / "netrc").write_text(f"machine {machine} login user password {'x' * 40}\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if "settings" in variables:
        (tmp_path / "wandb").mkdir()
        (tmp_path / "wandb" / "settings").write_text(f"[default]\nbase_url = {OWN}\n")
    assert (_wandb_mode("auto"), _wandb_mode("off")) == (mode, "off")
    if mode == "offline" and "WANDB_MODE" not in variables:
        with pytest.raises(UserError, match="wandb login"):
            _wandb_mode("online")


@pytest.mark.parametrize("left", ["4,0.6\r\n", "4,0", "4", "", "4,0.6\r\n5,0."])
def test_a_resumed_run_keeps_as_many_rows_as_its_checkpoint_knew(run, left):
    """Whatever a killed run has written since, down to half a row."""
    logger = MetricsCSV(run)
    for step in range(4):
        logger.log_metrics({"train/loss": 1.0 - step / 10}, step)
    assert not (run.folder / "metrics.csv").exists()
    assert logger.write_down() == 4
    before = (run.folder / "metrics.csv").read_bytes()
    assert before.startswith(b"step,train/loss\r\n")
    with (run.folder / "metrics.csv").open("a", newline="") as file:
        file.write(left)

    resumed = MetricsCSV(run, keep=3)
    resumed.log_metrics({"train/loss": 0.7}, 3)
    assert resumed.write_down() == 4
    assert (run.folder / "metrics.csv").read_bytes() == before
    again = MetricsCSV(run, keep=0)
    again.log_metrics({"val/psnr": 20.0}, 5)
    again.save()
    assert read_rows(run.folder / "metrics.csv") == [{"step": "5", "val/psnr": "20.0"}]


def test_a_new_column_does_not_empty_the_file_on_the_way(run, monkeypatch):
    logger = MetricsCSV(run, keep=0)
    for step, name in enumerate(("train/loss", "val/psnr")):
        logger.log_metrics({name: 20.0}, step)
        logger.save()
    before = [{"step": "0", "train/loss": "20.0", "val/psnr": ""}, {"step": "1", "train/loss": "", "val/psnr": "20.0"}]
    assert read_rows(run.folder / "metrics.csv") == before

    def killed(self, target):
        raise InterruptedError

    logger.log_metrics({"val/ssim": 0.5}, 2)
    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(InterruptedError):
        logger.save()
    assert read_rows(run.folder / "metrics.csv") == before


def test_wandb_offline_stays_in_the_run_folder_and_names_the_upload(run):
    loggers = make_loggers(run, "offline", tensorboard=True)
    assert [type(logger).__name__ for logger in loggers] == ["MetricsCSV", "WandbLogger", "TensorBoardLogger"]
    for logger in loggers:
        logger.log_metrics({"val/psnr": 20.0}, 1)
    assert wandb.run.id == f"less-noise--50--{run.version}"
    finish_wandb()
    assert wandb.run is None and "WANDB_MODE" not in os.environ, "the next run is one of its own"
    (folder,) = run.folder.glob("wandb/offline-run-*")
    assert list(folder.glob("*.wandb"))
    assert shlex.split(upload_command(run)) == ["wandb", "sync", str(folder)]
    assert list(run.folder.glob("events.out.tfevents*"))
