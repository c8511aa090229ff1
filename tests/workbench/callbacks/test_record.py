from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from workbench.callbacks import record


def test_the_environment_is_plain_and_names_versions_and_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["__main__.py", "fit", "--name", "a"])
    monkeypatch.setattr(record, "PACKAGES", ("torch", "no-such-package"))
    facts = json.loads(json.dumps(record.environment()))
    assert facts["command"] == "python -m project fit --name a"
    assert facts["packages"]["torch"] and facts["packages"]["no-such-package"] is None


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, in which the code is said to lie."""
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "first"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    return tmp_path


def test_the_commit_says_whether_files_differ_from_it(repository):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True).stdout.strip()
    assert record._commit() == head
    (repository / "record.py").write_text("")
    assert record._commit() == head, "a new file, such as a run's, is no change"
    subprocess.run(["git", "add", "record.py"], cwd=repository, check=True)
    assert record._commit() == f"{head}-dirty"


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record._commit() is None
