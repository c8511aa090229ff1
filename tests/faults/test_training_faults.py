"""Faults planted into small runs are named first, whatever the seed; `make faults` prints the whole table."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "faults"
sys.path.insert(0, str(FOLDER))
PLANTS = importlib.import_module("plants").PLANTS
RUNS = list(importlib.import_module("healthy").runs())
sys.path.remove(str(FOLDER))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("plant", PLANTS, ids=[plant.name for plant in PLANTS])
def test_a_planted_fault_is_named_first(plant, seed):
    faults = [finding.code for finding in plant.run(seed) if finding.is_fault]
    assert faults and faults[0] == plant.code


@pytest.mark.slow
@pytest.mark.parametrize(("name", "run"), RUNS, ids=[name for name, _ in RUNS])
def test_a_healthy_run_has_no_fault(name, run):
    assert [finding.code for finding in run() if finding.is_fault] == []
