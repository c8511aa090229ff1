from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from workbench.callbacks import metadata
from workbench.errors import UserError


def test_the_environment_is_plain_and_names_versions_and_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["__main__.py", "fit", "--name", "a"])
    facts = json.loads(json.dumps(metadata.environment()))
    assert facts["command"] == "python -m project fit --name a"
    assert facts["packages"]["torch"] == version("torch")


def test_the_commit_says_whether_files_differ_from_it(tmp_path, monkeypatch):
    def git(*words):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    def commit():
        return metadata.environment()["commit"]

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")
    monkeypatch.setattr(metadata, "__file__", str(tmp_path / "metadata.py"))
    head = git("rev-parse", "HEAD")
    assert commit() == head
    (tmp_path / "metadata.py").write_text("")
    assert commit() == head, "a new file, such as a run's, is no change"
    git("add", "metadata.py")
    assert commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))  # without git
    assert commit() is None


def report(capsys, samples=16, batch_size=16, processes=1, accumulated=1):
    """What is printed by one of the processes, whose sampler gives it a part of the samples."""
    loader = DataLoader(torch.zeros(samples, 1), batch_size=batch_size)
    trainer = SimpleNamespace(train_dataloader=loader, datamodule=None, is_global_zero=True)
    trainer.world_size, trainer.accumulate_grad_batches = processes, accumulated
    metadata.report_batch_size(trainer)
    return capsys.readouterr().out


def test_what_makes_a_batch_larger_is_printed_and_an_epoch_without_one_is_an_error(capsys):
    assert "16 x 4 processes x 2 accumulated = 128 samples a step" in report(capsys, processes=4, accumulated=2)
    assert report(capsys, batch_size=8, accumulated=3).startswith("Batch: 8 x 3 accumulated = 24 samples a step")
    assert report(capsys) == report(capsys, processes=2, batch_size=None) == ""
    with pytest.raises(UserError, match=r"15 samples for each of the 2 processes.*16.\n.*--data.batch_size 15"):
        report(capsys, samples=15, processes=2)
