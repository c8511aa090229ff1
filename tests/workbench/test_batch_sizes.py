"""Trained with one batch size, scored with others, resumed with a third: the same outputs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from project.__main__ import main


def scores(checkpoint: Path, *words: str) -> float:
    before = set(Path("runs").glob("*/*-test"))
    assert main(["test", "--ckpt_path", str(checkpoint), *words]) == 0
    (made,) = set(Path("runs").glob("*/*-test")) - before
    with (made / "metrics.csv").open(newline="") as file:
        return [float(row["test/psnr"]) for row in csv.DictReader(file) if row.get("test/psnr")][-1]


def test_no_output_depends_on_a_batch_size(small):
    run = small("run", "--trainer.max_steps", "6", "--data.fractions", "[0.4, 0.3, 0.3]")
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"
    assert scores(best) == pytest.approx(scores(best, "--data.eval_batch_size", "3"), abs=1e-4)

    assert small("run", "--data.batch_size", "3", "--trainer.max_steps", "9", resume=True) == run
    other = scores(last, "--data.eval_batch_size", "3", "--data.batch_size", "5")
    assert scores(last) == pytest.approx(other, abs=1e-4)
