from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"


def benchmark(*words: str, code: int = 0) -> str:
    command = [sys.executable, str(REPOSITORY / "scripts" / "benchmark"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sides"),
    [
        (["step", "--steps=2", "--config", CONFIGS / "colorize.yaml"], ("everything on", "bare loop")),
        (["monitors", "--steps=3", "--trainer.limit_val_batches=1"], ("monitors on", "monitors off")),
        (["loader"], ("loader, pixels kept", "loader, decoding", "Dataset of torchvision", "decoding alone")),
        (["start"], ("fit, one step", "import lightning.pytorch")),
    ],
    ids=["step", "monitors", "loader", "start"],
)
def test_each_part_prints_medians_spreads_and_ratios(words, sides):
    small = [] if words[0] == "loader" else ["--data.batch_size=2"]
    printed = benchmark(*map(str, words), "--rounds=2", *small)
    for side in sides:
        row = next(line for line in printed.splitlines() if line.strip().startswith(side))
        assert len(re.findall(r"\d+\.\d\d +\d+% +\d+\.\d{3}", row)) == 2, "wall and CPU time"


def test_noise_is_reported(monkeypatch, capsys):
    monkeypatch.syspath_prepend(REPOSITORY / "scripts" / "benchmark")
    from timing import compare

    times = iter([[9, 9], [9, 9], [1.0, 2.0], [2.0, 1.0], [1.1, 2.0], [2.0, 1.5], [1.0, 2.0], [2.0, 1.0]])
    sides = dict.fromkeys(("ours", "theirs"), lambda: np.array(next(times)))
    compare("a step", sides, rounds=3, unit="ms", factor=1000)
    printed = capsys.readouterr().out.replace("\n", " ")
    assert re.search(r"ours +1000\.00 +10% +0\.500 +2000\.00 +0% +2\.000", printed)
    assert "by CPU time: the rounds of one side differ by 50%" in printed and "by wall" not in printed


@pytest.mark.slow
def test_inference_is_timed(make_images):
    words = ["--config", CONFIGS / "denoise.yaml", "--data.root", make_images(20), "--data.crop=16", "--wandb=off"]
    command = [sys.executable, "-m", "project", "fit", *words, "--trainer.max_steps=1"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    printed = benchmark("inference", "--ckpt_path", "runs/denoise/latest/checkpoints/last.ckpt", "--rounds", "1")
    assert "256 x 256, batches of 8, CPU" in printed and printed.count("ONNX Runtime") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "inference needs --ckpt_path: runs/NAME/latest/checkpoints/best.ckpt"),
        (["--ckpt_path", "no.ckpt"], "There is no checkpoint no.ckpt"),
    ],
)
def test_inference_wants_a_checkpoint(words, message):
    printed = benchmark("inference", *words, code=2)
    assert message in printed and "Traceback" not in printed
