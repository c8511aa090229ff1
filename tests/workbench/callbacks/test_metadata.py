from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from workbench.callbacks import metadata
from workbench.callbacks.metadata import describe_batch, report_batch_size
from workbench.errors import UserError


def test_the_environment_is_plain_and_names_versions_and_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["__main__.py", "fit", "--name", "a"])
    facts = json.loads(json.dumps(metadata.environment()))
    assert facts["command"] == "python -m project fit --name a"
    assert facts["packages"]["torch"] == version("torch") and "rich" not in facts["packages"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, in which the code is said to be."""
    commit = ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "first"]
    for words in (["init", "-q"], commit):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(metadata, "__file__", str(tmp_path / "metadata.py"))
    return tmp_path


def test_the_commit_says_whether_files_differ_from_it(repository):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True).stdout.strip()
    assert metadata._commit() == head
    (repository / "metadata.py").write_text("")
    assert metadata._commit() == head, "a new file, such as a run's, is no change"
    subprocess.run(["git", "add", "metadata.py"], cwd=repository, check=True)
    assert metadata._commit() == f"{head}-dirty"


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert metadata._commit() is None


def test_what_makes_a_batch_larger_is_printed():
    text = describe_batch(batch=16, processes=4, accumulated=2, batches=25, rates=[0.002])
    assert "16 x 4 processes x 2 accumulated = 128 samples a step, 8 times" in text
    assert "13 steps an epoch instead of about 100" in text
    assert "0.002, as configured, not scaled; the linear rule would say 0.016, the square-root rule 0.00566" in text
    text = describe_batch(batch=8, processes=1, accumulated=3, batches=float("inf"), rates=[0.1, 0.2])
    assert text.startswith("Batch: 8 x 3 accumulated = 24 samples a step, 3 times those of one device.\n")
    assert "0.1, 0.2, as configured" in text


def _trainer(loader, processes):
    """Of processes whose samplers give each a part of the samples."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    return SimpleNamespace(
        train_dataloader=loader, datamodule=None, world_size=processes, accumulate_grad_batches=1, is_global_zero=True,
        num_training_batches=len(loader), optimizers=[optimizer],
    )  # fmt: skip


def test_an_epoch_without_a_batch_for_each_process_is_an_error(capsys):
    report_batch_size(_trainer(DataLoader(torch.zeros(16, 1), batch_size=16), processes=2))
    assert "16 x 2 processes = 32 samples" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"15 samples for each of the 2 processes.*16.\n.*--data.batch_size 15"):
        report_batch_size(_trainer(DataLoader(torch.zeros(15, 1), batch_size=16), processes=2))


def test_one_device_and_unknown_batches_print_nothing(capsys):
    report_batch_size(_trainer(DataLoader(torch.zeros(5, 1), batch_size=16), processes=1))
    report_batch_size(_trainer(DataLoader(torch.zeros(5, 1), batch_size=None), processes=2))
    assert capsys.readouterr().out == ""
