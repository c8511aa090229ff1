"""The comparison of precisions: by hand on made-up results, and small on the CPU by its command."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_checks.py"


@pytest.fixture
def checks(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_checks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setitem(sys.modules, "gpu_checks", module)  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(checks):
    common = {"step": 0.01, "expected": 400, "taken": 400, "psnr": 30.0, "baseline": 20.0, "finite": True}
    whole = checks.Result("UNet", "32-true", norms={"network": 2.0}, **common)
    half = checks.Result("UNet", "16-mixed", norms={"network": 2.05}, scales=[65536.0, 32768.0], **common)
    return [whole, half]


def test_precisions_that_train_alike_have_no_fault(checks, results):
    assert checks.find_faults(results) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finite": False}, "weights are not finite"),
        ({"taken": 370}, "30 of 400 steps were skipped"),
        ({"taken": 399, "scales": []}, "1 of 400 steps were skipped"),
        ({"psnr": 28.9}, "28.90 dB, 30.00 in 32"),
        ({"psnr": float("nan")}, "nan dB"),
        ({"norms": {"network": 2.0 * 65536}}, "the first gradient norm of network is 1.31e+05, 2 in 32"),
        ({"norms": {}}, "the first gradient norm of network is nan"),
    ],
)
def test_what_goes_wrong_is_reported(checks, results, change, message):
    vars(results[1]).update(change)
    (fault,) = checks.find_faults(results)
    assert fault.startswith("UNet 16-mixed: ") and message in fault


def test_a_few_steps_that_the_scale_costs_are_no_fault(checks, results):
    results[1].taken, results[1].norms = 385, {"network": 5.0}  # the first finite norm is a later step's
    assert checks.find_faults(results) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("There is no GPU here") and "--device cpu" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_it_runs_small_on_the_cpu():
    words = [sys.executable, str(SCRIPT), "--device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "dB" not in line]
    assert [row.split(" | ")[:2] for row in rows[1:]] == [
        [f"| {model}", precision] for model in ("UNet", "GAN") for precision in ("32-true", "bf16-mixed")
    ], done.stdout + done.stderr
    assert "0 of 6" in rows[1] and "0 of 12" in rows[3], "a GAN's two optimizers step in every batch"
    assert done.returncode == 0 and "All precisions train alike." in done.stdout
