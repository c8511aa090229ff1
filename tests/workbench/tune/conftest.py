"""A task of 20 lines in a module of its own, and sweeps of it by the real command in a process that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from workbench.tune import study

TASK = '''
import os, signal, time
from pathlib import Path
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset
from workbench.tune import study

study.HEARTBEAT, study.GRACE = 1, 4  # a sweep that is killed is missed sooner


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 8):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
        self.data = TensorDataset(x, x.sum(1, keepdim=True))

    def train_dataloader(self):
        return DataLoader(self.data, self.batch_size, shuffle=True)

    val_dataloader = train_dataloader


class Model(LightningModule):
    """Its score is known: (log10 lr + 2)^2 + depth, whatever it has learned."""

    def __init__(self, lr: float = 0.1, depth: int = 1, optimizer: str = "SGD", fault: str | None = None,
                 seconds: float = 0.0, dropout: float | None = None):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, index):
        time.sleep(self.hparams.seconds)
        with open("steps.log", "a") as file:  # which folder did which step
            file.write(f"{Path(self.trainer.log_dir).parent.name} {self.global_step} {os.getpid()}\\n")
        fault = self.hparams.fault
        if fault == "raise":
            raise RuntimeError("planted")
        if fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if fault == "kill" and self.global_step == 6 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.nn.functional.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        score = (torch.log10(torch.tensor(self.hparams.lr)) + 2) ** 2 + self.hparams.depth
        self.log("val/loss", score * (float("nan") if self.hparams.fault == "nan" else 1))

    def configure_optimizers(self):
        return getattr(torch.optim, self.hparams.optimizer)(self.parameters(), lr=1e-3)
'''
CONFIG = {
    "model": {"class_path": "task.Model"},
    "data": {"class_path": "task.Data"},
    "trainer": {"accelerator": "cpu", "max_steps": 8, "check_val_every_n_epoch": None, "val_check_interval": 4},
}


class Command:
    """``python -m workbench sweep`` in the test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        self.environment["PYTHONPATH"] += os.pathsep + str(folder)
        self.started: list[subprocess.Popen] = []

    def write(self, space: dict[str, Any], **settings: Any) -> None:
        """The sweep's file, s.yaml."""
        tree = {"space": space, "objective": "val/loss", **settings}
        (self.folder / "s.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))

    def start(self, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "workbench", "sweep", "--config", "c.yaml", "--sweep", "s.yaml", *words]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.started.append(process)
        return process

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run to the end; what it prints."""
        process = self.start(*words)
        text, _ = process.communicate(timeout=300)
        assert process.returncode == code, text
        return text

    def trials(self, url: str | None = None) -> list[optuna.trial.FrozenTrial]:
        url = url or f"sqlite:///{self.folder}/runs/s/study.db"
        return optuna.load_study(study_name="s", storage=optuna.storages.RDBStorage(url)).get_trials()

    def steps(self) -> list[tuple[str, int, int]]:
        """Every training step that was done: the trial, the step, the process."""
        path = self.folder / "steps.log"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [(name, int(step), int(process)) for name, step, process in (line.split() for line in lines)]

    def processes(self) -> list[int]:
        """The trials' processes that run in this folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes()
                if b"workbench.tune.trial" in words and (path / "cwd").readlink() == self.folder:
                    found.append(int(path.name))
            except OSError:
                continue
        return found


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Command]:
    """The command, in a folder with the task and its configuration c.yaml."""
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    command = Command(tmp_path)
    yield command
    for process in command.started:
        process.kill()
        process.wait()
    for number in command.processes():
        os.kill(number, signal.SIGKILL)


@pytest.fixture
def here(sweep: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same, where the sweep runs in the test's process, and its trials in their own."""
    for name in ("HEARTBEAT", "GRACE"):  # which the task's module sets
        monkeypatch.setattr(study, name, getattr(study, name))
    for name, value in sweep.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(sweep.folder)
    monkeypatch.delitem(sys.modules, "task", raising=False)
    return sweep
