from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def benchmark(*words: str) -> str:
    command = [sys.executable, str(REPOSITORY / "scripts" / "benchmark"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("config", ["denoise.yaml", "colorize.yaml"])
def test_a_step_is_timed_against_a_bare_loop(config):
    path = str(REPOSITORY / "configs" / config)
    small = ["--data.batch_size=2", *(["--data.crop=32"] if config == "denoise.yaml" else [])]
    printed = benchmark("step", "--config", path, "--steps", "2", "--rounds", "1", *small)
    for side in ("everything on", "callbacks off", "bare loop"):
        assert side in printed


@pytest.mark.slow
@pytest.mark.parametrize("config", ["denoise.yaml", "colorize.yaml"])
def test_the_monitors_are_timed_against_a_run_without_them(config):
    path = str(REPOSITORY / "configs" / config)
    small = ["--data.batch_size=2", "--trainer.limit_val_batches=1"]
    printed = benchmark("monitors", "--config", path, "--steps", "3", "--rounds", "2", *small)
    assert "monitors on" in printed and "monitors off" in printed and "2 rounds" in printed


@pytest.mark.slow
def test_the_loader_is_timed_against_decoding():
    printed = benchmark("loader", "--pictures", "20", "--rounds", "1")
    assert printed.count("decoding alone") == 2
    assert printed.count("Dataset of torchvision") == 2


@pytest.mark.slow
def test_the_start_is_timed_against_the_imports():
    printed = benchmark("start", "--config", str(REPOSITORY / "configs" / "denoise.yaml"), "--rounds", "1")
    assert "first step, cold" in printed
    assert "most memory" in printed
