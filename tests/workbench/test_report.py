from __future__ import annotations

from workbench.report import print_scores


def test_scores_stand_beside_doing_nothing_and_facts_below(capsys):
    scores = {"val/psnr": 28.456, "val/psnr_baseline": 20.171, "test/ssim": 0.81239, "test/ssim_baseline": 0.4}
    print_scores(scores, {"Run": "runs/a", "Upload": None}, title="after 3 steps")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "after 3 steps"
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert rows == [["PSNR (dB)", "28.46", "20.17", "", ""], ["SSIM", "", "", "0.8124", "0.4000"]]
    assert lines[-1] == "Run  runs/a"


def test_a_metric_of_ones_own_has_its_row(capsys):
    scores = {f"test/{name}{end}": 0.12345 for name in ("edges", "psnr", "blur") for end in ("", "_baseline")}
    print_scores(scores, {}, title="t")
    rows = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert rows == ["PSNR (dB)", "blur", "edges"]


def test_colors_have_units_and_digits(capsys):
    measured = {"psnr": 26.049, "acc_2": 24.5678, "acc_5": 56.25, "colorfulness": 31.449, "colorfulness_ratio": 0.715}
    scores = {f"test/{name}{end}": value for name, value in measured.items() for end in ("_baseline", "")}
    print_scores(scores, {}, title="t")
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row for row in rows if len(row) == 2] == [
        ["PSNR (dB)", "26.05"],
        ["pixels right within 2 (%)", "24.6"],
        ["pixels right within 5 (%)", "56.2"],
        ["colorfulness", "31.4"],
        ["colorfulness / truth's", "0.71"],
    ]


def test_nothing_to_compare_prints_no_table(capsys):
    print_scores({"train/loss": 0.1}, {"Run": "runs/a"}, title="t")
    assert capsys.readouterr().out == "Run  runs/a\n"
