from __future__ import annotations

import logging

from lightning.pytorch.utilities import rank_zero_only

from project.__main__ import HEADINGS
from workbench.console import print_scores, rank_zero_print


def cells(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]


def test_scores_stand_beside_their_baseline_and_facts_below(capsys):
    scores = {"val/psnr": 28.456, "val/psnr_baseline": 20.171, "test/ssim": 0.81239, "test/ssim_baseline": 0.4}
    print_scores({**scores, "val/loss": 1.0}, {"Run": "runs/a", "Upload": None}, title="after 3 steps")
    printed = capsys.readouterr().out
    assert printed.startswith("after 3 steps\n") and printed.endswith("\nRun  runs/a\n")
    assert cells(printed) == [["PSNR (dB)", "28.46", "20.17", "", ""], ["SSIM", "", "", "0.8124", "0.4000"]]


def test_known_metrics_come_first_with_their_units(capsys):
    measured = {"edges": 0.1, "psnr": 26.049, "acc_2": 24.5678, "blur": 0.5}
    print_scores({f"test/{k}{end}": v for k, v in measured.items() for end in ("", "_baseline")}, {}, title="t")
    expected = {"psnr": "26.05", "acc_2": "24.6", "blur": "0.5000", "edges": "0.1000"}
    rows = [[HEADINGS.get(name, (name,))[0], value, value] for name, value in expected.items()]
    assert cells(capsys.readouterr().out) == rows


def test_without_baselines_all_metrics_are_shown(capsys):
    print_scores({"train/loss": 0.1, "val/accuracy": 0.5, "test/accuracy": 0.25}, {}, title="t")
    assert cells(capsys.readouterr().out) == [["accuracy", "0.5000", "0.2500"]]
    print_scores({"train/loss": 0.1}, {"Run": "runs/a"}, title="t")
    assert capsys.readouterr().out == "Run  runs/a\n", "no table without a metric"


def test_rank_0_prints_whatever_logging_says(capsys, monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    rank_zero_print("2 images were left out")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    rank_zero_print("again")
    assert capsys.readouterr().out == "2 images were left out\n"
