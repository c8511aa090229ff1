from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_benchmark_prints_both_and_their_ratio():
    command = [sys.executable, str(REPOSITORY / "scripts" / "benchmark.py"), "--steps", "2", "--rounds", "1"]
    words = ["--config", str(REPOSITORY / "configs" / "denoise.yaml"), "--data.batch_size=2", "--data.crop=32"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "wall: project" in done.stdout
    assert "CPU: project" in done.stdout
    assert "ratio" in done.stdout
