"""What the comparison of two soaked runs looks at."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak.py"
CHECKPOINT = {
    "config": "name: one",
    "loops": {"fit_loop": {"epoch_loop.val_loop.batch_progress": 1, "epoch_progress": {"current": 2}}},
    "state_dict": {"weight": torch.tensor([1.0, float("nan")])},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}],
    "callbacks": {"Watch": {"best": float("nan"), "notes": ["a"]}},
    "of_tomorrow": {"count": 1},
}
FILES = ("metrics.csv", "measurements.csv", "findings.jsonl", "samples/step_1.png")


def write(run: Path, checkpoint: dict) -> Path:
    for name in ("best", "last", "snapshot-000001"):
        path = run / "checkpoints" / f"{name}.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)
    for name in FILES:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("1")
    return run


@pytest.fixture
def compare():
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compare


def test_equal_runs_may_differ_in_their_name_and_in_validations_begun(compare, tmp_path):
    other = copy.deepcopy(CHECKPOINT) | {"config": "name: other"}
    other["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = 2
    assert compare(write(tmp_path / "one", CHECKPOINT), write(tmp_path / "other", other)) == []


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["loops", "fit_loop", "epoch_progress", "current"], 3),
        (["state_dict", "weight"], torch.tensor([1.0 + 2**-23, float("nan")])),
        (["state_dict", "weight"], torch.tensor([1.0, float("nan")], dtype=torch.float64)),
        (["optimizer_states", 0, "state", 0, "step"], torch.tensor(4.0)),
        (["callbacks", "Watch", "best"], 0.5),
        (["callbacks", "Watch", "notes"], ["a", "b"]),
        (["of_tomorrow", "count"], 1.0),
    ],
)
def test_whatever_differs_in_a_checkpoint_is_reported(compare, tmp_path, keys, value):
    other = copy.deepcopy(CHECKPOINT)
    place = other
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    faults = compare(write(tmp_path / "one", CHECKPOINT), write(tmp_path / "other", other))
    where = ".".join(map(str, ["", *keys]))
    assert faults == [f"{name}.ckpt: {where}" for name in ("best", "last", "snapshot-000001")]


def test_files_that_differ_or_are_missing_are_reported(compare, tmp_path):
    one, other = (write(tmp_path / name, CHECKPOINT) for name in ("one", "other"))
    for name in FILES:
        (other / name).write_text("2")
    (other / "checkpoints" / "snapshot-000001.ckpt").unlink()
    faults = compare(one, other)
    assert faults[0] == f"{Path('checkpoints', 'snapshot-000001.ckpt')} is in one run only"
    assert faults[1:] == [f"{Path(name).name} differs" for name in FILES]
    (one / "metrics.csv").unlink(), (other / "metrics.csv").unlink()
    assert "neither run has metrics.csv" in compare(one, other)
