"""Every image's error, and the worst ones."""

import csv

import numpy as np
import pytest
import torch

from project.inference.inspection.worst import SIDE, Analysis


def add(analysis, name, error, size=(12, 17), seed=0):
    """One image whose answer is off by so much everywhere."""
    target = torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)).mul(127).round() / 255
    analysis.add(name, target[:1], target + error, target, target + 2 * error)
    return target


def test_errors_are_of_the_answer_as_it_would_be_saved(tmp_path):
    random = np.random.default_rng(0)
    target, answer, before = (random.random((3, 9, 14)) for _ in range(3))
    analysis = Analysis()
    tensors = [torch.from_numpy(part).float() for part in (target, answer * 1.4 - 0.2, target, before)]
    analysis.add("a.png", *tensors)
    saved = np.round(np.clip(answer * 1.4 - 0.2, 0, 1) * 255) / 255
    mse = np.mean((saved - target) ** 2)
    (row,) = analysis.rows
    assert row.mse == pytest.approx(mse, rel=1e-5)
    assert row.psnr == pytest.approx(-10 * np.log10(mse), abs=1e-4)
    assert row.psnr_baseline == pytest.approx(-10 * np.log10(np.mean((before - target) ** 2)), abs=1e-4)
    assert (row.width, row.height) == (14, 9)


def test_the_table_lists_all_the_worst_first_whatever_they_are_called(tmp_path):
    analysis = Analysis(count=2)
    errors = {"b, c.png": 0.1, 'say "a".png': 0.3, "ü/#1.png": 0.0, "d.png": 0.2}
    for name, error in errors.items():
        add(analysis, name, error)
    analysis.write(tmp_path / "worst.csv")
    with (tmp_path / "worst.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ['say "a".png', "d.png", "b, c.png", "ü/#1.png"]
    assert float(rows[-1]["psnr"]) == 100, "without an error"
    assert float(rows[1]["psnr"]) == pytest.approx(-20 * np.log10(0.2), abs=0.1)
    columns = ["file", "mse", "psnr", "psnr_baseline", "width", "height", "edge_density", "contrast", "brightness"]
    assert list(rows[0])[:9] == columns


@pytest.mark.parametrize("total", [1, 2, 3, 16, 30])
def test_the_worst_are_drawn_all_within_the_picture(total):
    analysis = Analysis()
    for number in range(total):
        name = f"a rather long name of a folder/{number:03}.png"
        add(analysis, name, 0.3 * ((7 * number) % 31) / 31, size=(12, 17) if number % 2 else (300, 100))
    kept = sorted((kept.row.file for kept in analysis._worst), key=[row.file for row in analysis.rows].index)
    assert kept == [row.file for row in analysis.rows[:16]]
    drawn = np.asarray(analysis.draw("val"))
    assert (drawn[:, [0, -1]] == 255).all() and (drawn[[0, -1]] == 255).all(), "nothing is cut off at the sides"
    shown = min(total, 16)
    down = shown if shown < 3 else -(-shown // 2)
    assert drawn.shape[0] > down * 192 * (0.9 if total == 1 else 0.8)
    assert drawn.shape[1] > (1 if shown < 3 else 2) * 4 * 64


def test_the_error_map_is_bright_where_the_error_is():
    analysis = Analysis()
    target = torch.zeros(3, 40, 60)
    output = target.clone()
    output[:, 10:20, 30:50] = 0.5
    analysis.add("a.png", target, output, target, target)
    drawn = np.asarray(analysis.draw("val")).astype(int)
    brightest = (np.abs(drawn - [252, 255, 164]).sum(axis=2) < 6).sum()  # inferno's upper end
    zoom = SIDE // 60
    assert brightest == pytest.approx(200 * zoom**2, abs=60)
