"""Measures against NumPy, correlations against SciPy; every image's error, and the worst ones."""

import csv

import numpy as np
import pytest
import torch
from scipy.stats import norm, spearmanr

from project.inference.image_errors import (
    MEASURES,
    SIDE,
    Row,
    describe_errors,
    draw_worst,
    edge_density,
    measure,
    rank_correlations,
    write_table,
)


def test_edges_are_where_the_brightness_steps():
    image = torch.zeros(20, 30)
    image[:, 12:] = 0.3
    assert edge_density(image) == pytest.approx(2 / 30), "the two columns beside the step"
    assert edge_density(image * 0.3) == 0, "a step of 0.09 is none"
    assert edge_density(image * 0.4) == pytest.approx(2 / 30), "one of 0.12 is"
    assert edge_density(image.T) == pytest.approx(2 / 30)


def rows(errors, **measures):
    columns = zip(errors, *measures.values(), strict=True)
    return [Row("a.png", mse, 20, 10, 8, 8, dict(zip(measures, values, strict=True))) for mse, *values in columns]


def test_correlations_are_those_of_the_ranks_ties_included():
    random = np.random.default_rng(1)
    errors = random.random(40)
    measures = {
        "tied": np.round(errors * 5 + random.random(40) * 3),
        "opposite": -(errors**3),
        "other": random.random(40),
        "same": np.full(40, 0.2),
    }
    found = rank_correlations(rows(errors, **measures))
    for name in ("tied", "opposite", "other"):
        assert found[name] == pytest.approx(spearmanr(errors, measures[name]).statistic, abs=1e-4)
    assert list(found) == ["opposite", "tied", "other"], "strongest first, constant ones left out"
    text = describe_errors(rows(errors, **measures))
    assert text.startswith("Worse with less opposite (-1.00), more tied (+") and "other" not in text
    assert "up to 0.41 may be chance" in text
    assert norm.ppf(1 - 0.05 / 2 / len(MEASURES)) == pytest.approx(2.58, abs=0.01)
    assert "Worse with nothing measured here" in describe_errors(rows(errors, other=measures["other"]))
    assert "too few" in describe_errors(rows(errors[:9], tied=measures["tied"][:9]))


def entry(name, error, size=(12, 17), seed=0):
    """One image whose output is off by so much everywhere: its row and its images."""
    target = torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)).mul(127).round() / 255
    output = target + error
    return measure(name, output, target, target + 2 * error), [target[:1], output, target]


@pytest.mark.parametrize("channels", [1, 3])
def test_errors_are_of_the_output_as_it_would_be_saved_and_measures_of_the_target(channels):
    random = np.random.default_rng(0)
    target, output, before = (random.random((channels, 9, 14)) for _ in range(3))
    output = output * 1.4 - 0.2
    row = measure("a.png", *(torch.from_numpy(part).float() for part in (output, target, before)))
    mse = np.mean((np.round(np.clip(output, 0, 1) * 255) / 255 - target) ** 2)
    assert row.mse == pytest.approx(mse, rel=1e-5)
    assert row.psnr == pytest.approx(-10 * np.log10(mse), abs=1e-4)
    assert row.psnr_baseline == pytest.approx(-10 * np.log10(np.mean((before - target) ** 2)), abs=1e-4)
    assert (row.width, row.height) == (14, 9)
    luma = target[0] if channels == 1 else np.tensordot([0.299, 0.587, 0.114], target, 1)
    assert row.measures["brightness"] == pytest.approx(luma.mean(), abs=1e-5)
    assert row.measures["contrast"] == pytest.approx(luma.std(), abs=1e-5)
    assert row.measures["pixels"] == 9 * 14
    assert (row.measures["colorfulness"] > 1) == (channels == 3)


def test_the_table_keeps_its_rows_whatever_files_are_called(tmp_path):
    errors = {'say "a".png': 0.3, "d.png": 0.2, "b, c.png": 0.1, "ü/#1.png": 0.0}
    write_table([entry(name, error)[0] for name, error in errors.items()], tmp_path / "worst.csv")
    with (tmp_path / "worst.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == list(errors)
    assert float(rows[-1]["psnr"]) == 100, "without an error"
    assert float(rows[1]["psnr"]) == pytest.approx(-20 * np.log10(0.2), abs=0.1)
    assert list(rows[0]) == ["file", "mse", "psnr", "psnr_baseline", "width", "height", *MEASURES]


def test_the_worst_are_drawn_within_the_image():
    total, name = 3, "a rather long name of a folder/000.png"
    worst = [entry(name, 0.3 * n / 16, size=(12, 17) if n % 2 else (300, 100)) for n in range(total)]
    drawn = np.asarray(draw_worst(worst))
    assert (drawn[:, [0, -1]] == 255).all() and (drawn[[0, -1]] == 255).all(), "nothing is cut off at the sides"
    assert drawn.shape[0] > 160 * total and drawn.shape[1] > 4 * 64


def test_the_error_map_is_bright_where_the_error_is():
    target = torch.zeros(3, 40, 60)
    output = target.clone()
    output[:, 10:20, 30:50] = 0.5
    drawn = np.asarray(draw_worst([(measure("a.png", output, target, target), [target, output, target])])).astype(int)
    brightest = (np.abs(drawn - [252, 255, 164]).sum(axis=2) < 6).sum()  # inferno's upper end
    assert brightest == pytest.approx(200 * (SIDE / 60) ** 2, rel=0.05)
