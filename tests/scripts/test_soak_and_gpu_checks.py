"""What the comparison of two soaked runs looks at, and that of precisions; the latter also small by its command."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"
CHECKPOINT = {
    "config": "name: one",
    "loops": {"fit_loop": {"epoch_loop.val_loop.batch_progress": 1, "epoch_progress": {"current": 2}}},
    "state_dict": {"weight": torch.tensor([1.0, float("nan")])},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}],
    "callbacks": {"Watch": {"best": float("nan"), "notes": ["a"]}},
    "of_tomorrow": {"count": 1},
}
CHECKPOINTS = ("best", "last", "snapshot-000001")
FILES = ("metrics.csv", "measurements.csv", "findings.jsonl", "samples/step_1.png")


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks itself up
    spec.loader.exec_module(module)
    return module


compare, gpu_checks = load("soak").compare, load("gpu_checks")


def write(run: Path, checkpoint: dict) -> Path:
    for folder in ("checkpoints", "samples"):
        (run / folder).mkdir(parents=True)
    for name in CHECKPOINTS:
        torch.save(checkpoint, run / "checkpoints" / f"{name}.ckpt")
    for name in FILES:
        (run / name).write_text("1")
    return run


def test_equal_runs_may_differ_in_their_name_and_in_validations_begun(tmp_path):
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
        (["callbacks", "Watch", "notes"], []),
        (["of_tomorrow", "count"], 1.0),
    ],
)
def test_whatever_differs_in_a_checkpoint_is_reported(tmp_path, keys, value):
    place = other = copy.deepcopy(CHECKPOINT)
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    lines = compare(write(tmp_path / "one", CHECKPOINT), write(tmp_path / "other", other))
    where = ".".join(map(str, ["", *keys]))
    assert {f"{name}.ckpt: {where}" for name in CHECKPOINTS} <= set(lines)
    assert all(where in line for line in lines)


def test_files_that_differ_or_are_missing_are_reported(tmp_path):
    one, other = (write(tmp_path / name, CHECKPOINT) for name in ("one", "other"))
    for name in FILES:
        (other / name).write_text("2")
    (other / "checkpoints" / "snapshot-000001.ckpt").unlink()
    lines = compare(one, other)
    assert lines[0] == f"{Path('checkpoints', 'snapshot-000001.ckpt')} is in one run only"
    assert lines[1:] == [f"{Path(name).name} differs" for name in FILES]
    (one / "metrics.csv").unlink(), (other / "metrics.csv").unlink()
    assert "neither run has metrics.csv" in compare(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"taken": 385, "norms": {"network": 5.0}}, None),  # the first finite norm is a later step's
        ({"finite": False}, "weights are not finite"),
        ({"taken": 370}, "30 of 400 steps were skipped"),
        ({"taken": 399, "scale": None}, "1 of 400 steps were skipped"),
        ({"psnr": 28.9}, "28.90 dB, 30.00 in 32"),
        ({"psnr": float("nan")}, "nan dB"),
        ({"norms": {"network": 2.0 * 65536}}, "the first gradient norm of network is 1.31e+05, 2 in 32"),
        ({"norms": {}}, "the first gradient norm of network is nan"),
    ],
)
def test_what_a_precision_does_wrong_is_reported(change, message):
    common = {"step": 0.01, "memory": 1.0, "expected": 400, "taken": 400, "psnr": 30.0, "baseline": 20.0}
    whole = gpu_checks.Result("UNet", "32-true", scale=None, norms={"network": 2.0}, finite=True, **common)
    half = gpu_checks.Result("UNet", "16-mixed", scale=32768.0, norms={"network": 2.05}, finite=True, **common)
    vars(half).update(change)
    lines = gpu_checks.find_faults([whole, half])
    assert len(lines) == (message is not None)
    assert all(line.startswith("UNet 16-mixed: ") and message in line for line in lines)


def run(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPTS / "gpu_checks.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("There is no GPU here") and "--device cpu" in done.stderr


@pytest.mark.slow
def test_precisions_are_compared_on_the_cpu():
    done = run("--device", "cpu")
    rows = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines() if line.startswith("| ")]
    kinds = [[model, precision] for model in ("UNet", "GAN") for precision in ("32-true", "bf16-mixed")]
    assert [row[1:3] for row in rows[1:]] == kinds, done.stdout + done.stderr
    skipped = rows[0].index("steps skipped")
    assert rows[1][skipped] == "0 of 6" and rows[3][skipped] == "0 of 12", "a GAN's optimizers step in every batch"
    assert done.returncode == 0 and "All precisions train alike." in done.stdout
