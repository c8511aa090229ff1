"""Faults planted into small runs are named first; `make faults` prints the whole table."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.findings import training_rules

FOLDER = Path(__file__).parents[2] / "scripts" / "faults"
sys.path.insert(0, str(FOLDER))
PLANTS = {f"{code}: {name}": (code, run) for code, name, run in importlib.import_module("plants").PLANTS}
RUNS = dict(importlib.import_module("healthy").runs())
sys.path.remove(str(FOLDER))

SAMPLE = (  # one of each kind, for every day
    "parameters-unchanged: decoder without an optimizer",
    "learning-rate-high: Adam, rate x 1000",
    "learning-rate-low: Adam, rate / 2000",
    "labels-swapped: GAN: labels swapped",
    "gradients-not-cleared: zero_grad overridden",
    "adversarial-imbalance: GAN: adversarial weight of 1e6",
    "dead-units: biases of the middle at -10",
    "nonfinite-loss: NaN in the input of step 33",
    "discriminator-leaks: GAN: colors not detached",
    "metric-disagrees: an error counted as a score",
)


def _first(findings) -> str:
    return next((finding.code for finding in findings if finding.is_fault), "none")


def test_every_code_is_planted_and_none_lost():
    assert {code for code, _ in PLANTS.values()} == {rule.code for rule in training_rules()}
    assert (len(PLANTS), len(RUNS)) == (74, 98)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_planted_fault_of_the_sample_is_named_first(name):
    code, run = PLANTS[name]
    assert _first(run(5)) == code


@pytest.mark.parametrize("name", ["no norm, rate 0.002, seed 1", "GAN, Standard, seed 1"])
def test_a_healthy_run_of_the_sample_has_no_fault(name):
    assert _first(RUNS[name]()) == "none"


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_named_first(name):
    """On two of three seeds at least: now and then a network learns in spite of it."""
    code, run = PLANTS[name]
    named = [_first(run(seed)) for seed in (1, 2, 3)]
    assert named.count(code) >= 2, named


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_healthy_run_has_no_fault(name):
    assert _first(RUNS[name]()) == "none"


@pytest.mark.slow
def test_the_command_counts_the_checks():
    words = ["--seeds", "1", "--first-seed", "2", "--only", "grey", "--part", "checks"]
    done = subprocess.run([sys.executable, str(FOLDER), *words], capture_output=True, text=True)
    assert "target-grey" in done.stdout and "named first (100.0%)" in done.stdout, done.stdout + done.stderr
