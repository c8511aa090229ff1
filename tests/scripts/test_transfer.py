from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "transfer.py"


@pytest.mark.slow
def test_three_runs_of_the_same_steps_are_drawn_side_by_side(make_images):
    photographs, inputs, targets = (str(make_images(52, 70, 66, folder=name)) for name in ("a", "b", "c"))
    words = ["--photographs", photographs, "--inputs", inputs, "--targets", targets, "--pairs", "12"]
    words += ["--pretrain_steps", "2", "--steps", "20", "--side", "32", "--output", "out"]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    with Path("out", "transfer.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {"from scratch", "fine-tuned", "encoder frozen", "doing nothing"}
    assert "76 of 76 parameters taken" in done.stdout
    assert Image.open("out/transfer.png").size[0] > 600
