"""Cycles until an engine fails, on made-up engines in the text format of C-MAPSS."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.remaining_life.data import EngineWindows
from examples.remaining_life.model import RemainingLife
from project.__main__ import main
from workbench.checkpoint import load_model
from workbench.errors import UserError

CONFIG = Path(__file__).parents[2] / "examples" / "remaining_life" / "remaining_life.yaml"
UNIT, CYCLE, WEAR, ODD = 1, 2, 10, 20  # sensors that show the unit, the cycle and the wear; one that may vary
VARYING = [UNIT, CYCLE, WEAR]


def write_engines(path: Path, lengths: list[int], odd_unit: int = 0) -> None:
    """Engines 1, 2, ... of that many cycles; all sensors but `VARYING` are constant, but for `ODD` in ``odd_unit``."""
    rng = np.random.default_rng(len(lengths))
    lines = []
    for unit, length in enumerate(lengths, 1):
        for cycle in range(1, length + 1):
            sensors = np.full(21, 0.03)
            sensors[VARYING] = unit, cycle, 500 + 0.5 * cycle + 0.1 * rng.standard_normal()
            sensors[ODD] += rng.random() if unit == odd_unit else 0
            numbers = [*rng.normal(0, 0.001, 2), 100.0, *sensors]
            lines.append(f"{unit} {cycle} " + " ".join(f"{number:.4f}" for number in numbers) + "  \n")
    text = "".join(lines)
    path.write_bytes(gzip.compress(text.encode())) if path.suffix == ".gz" else path.write_text(text)


LENGTHS = [14, 21, 9, 30, 17, 25, 12, 19, 28, 11]
TESTED, LEFT = [6, 3, 18], [4, 40, 7]  # cycles that each test engine has run, and has left


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "engines"
    folder.mkdir()
    write_engines(folder / "train_FD001.txt.gz", LENGTHS)
    write_engines(folder / "test_FD001.txt", TESTED)
    (folder / "RUL_FD001.txt").write_text("".join(f"{left} \n" for left in LEFT))
    return folder


def prepared(root: Path, **options) -> EngineWindows:
    data = EngineWindows(str(root), **{"window": 8, "batch_size": 16, "cap": 12, **options})
    data.setup("fit")
    return data


def test_a_window_holds_one_engine_and_its_target_is_what_is_left_of_it(root):
    data = prepared(root)
    ends = {}
    for split in ("train", "val"):
        ends[split] = set()
        for sensors, left in zip(*(tensor.numpy() for tensor in data.sets[split].tensors), strict=True):
            rows = sensors[sensors[:, UNIT] != 0]
            (unit,), end = set(rows[:, UNIT].astype(int)), int(rows[-1, CYCLE])
            assert rows[:, CYCLE].tolist() == list(range(max(1, end - 7), end + 1)) and not sensors[len(rows) :].any()
            assert left == min(12, LENGTHS[unit - 1] - end)
            ends[split].add((unit, end))
    units = {split: {unit for unit, _ in found} for split, found in ends.items()}
    assert [len(units[split]) for split in ("train", "val")] == [7, 2] and not units["train"] & units["val"]
    for split, found in ends.items():
        assert len(found) == len(data.sets[split]) == sum(LENGTHS[unit - 1] for unit in units[split])


def test_the_test_set_is_the_last_window_of_each_official_engine(root):
    sensors, left = prepared(root).sets["test"].tensors
    assert left.tolist() == [4, 12, 7]
    assert sensors[:, :, CYCLE].tolist() == [[1, 2, 3, 4, 5, 6, 0, 0], [1, 2, 3, 0, 0, 0, 0, 0], list(range(11, 19))]
    held_out = prepared(root, official_test=False)
    unit = set(range(1, 11)) - {1 + number for split in ("train", "val") for number in held_out.engines[split]}
    assert set(held_out.sets["test"].tensors[0][:, 0, UNIT].tolist()) == unit and len(unit) == 1


def test_scaling_is_that_of_the_training_engines_alone(root):
    other = prepared(root).engines["val"][0] + 1
    write_engines(root / "train_FD001.txt.gz", LENGTHS, odd_unit=other)  # constant in training
    data = prepared(root)
    table = np.loadtxt(root / "train_FD001.txt.gz")
    own = table[np.isin(table[:, 0], [number + 1 for number in data.engines["train"]])][:, 5:]
    assert data.columns.tolist() == VARYING
    np.testing.assert_allclose(data.mean, own[:, VARYING].mean(0), rtol=1e-12)
    np.testing.assert_allclose(data.std, own[:, VARYING].std(0), rtol=1e-12)
    write_engines(root / "train_FD001.txt.gz", LENGTHS, odd_unit=data.engines["train"][0] + 1)
    assert prepared(root).columns.tolist() == [*VARYING, ODD]


def test_outputs_are_the_same_one_at_a_time_and_without_padding(root):
    torch.manual_seed(0)
    data, width = prepared(root), 8
    model = RemainingLife(sensors=3, width=width)
    model.trainer = type("Trainer", (), {"datamodule": data})()
    model.setup("fit")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for sensors, left in data.train_dataloader():
        assert len(sensors) == 16
        optimizer.zero_grad()
        (model(sensors) - left).square().mean().backward()
        optimizer.step()
    model.eval()
    sensors = data.sets["train"].tensors[0][:16]  # the first ones are shorter than the window
    lengths = [min(number, 8) for number in range(1, 17)][: LENGTHS[data.engines["train"][0]]]
    # Rounding, added up over the window's cycles and each sum's terms, in cycles.
    tolerance = torch.finfo(torch.float32).eps * 8 * (2 * width) * float(model.target_std)
    together = model(sensors)
    assert together.std() > 100 * tolerance
    for number, length in enumerate(lengths):
        alone = sensors[number : number + 1]
        torch.testing.assert_close(model(alone)[0], together[number], rtol=0, atol=tolerance)
        torch.testing.assert_close(model(alone[:, :length])[0], together[number], rtol=0, atol=tolerance)


def words(root: Path) -> list[str]:
    options = {"data.root": root, "data.window": 8, "data.batch_size": 16, "data.cap": 12, "trainer.accelerator": "cpu"}
    options |= {"model.init_args.sensors": 3, "model.init_args.width": 8}
    return ["--config", str(CONFIG), *(word for key, value in options.items() for word in (f"--{key}", str(value)))]


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_it_is_fitted_resumed_tested_and_used_by_its_checkpoint(root, capsys):
    assert main(["fit", *words(root), "--wandb", "off", "--trainer.max_epochs", "1"]) == 0
    resume = ["fit", "--name", "remaining_life", "--resume", "latest", "--wandb", "off", "--trainer.max_epochs", "3"]
    assert main(resume) == 0
    run = Path("runs", "remaining_life", "latest")
    assert len(column(run, "val/rmse")) == 3 + 1, "a validation an epoch, and that of the best checkpoint"
    assert column(run, "test/rmse")
    data = prepared(root)
    mean = data.sets["train"].tensors[1].numpy().mean()
    for split in ("val", "test"):
        error = data.sets[split].tensors[1].numpy() - mean
        assert column(run, f"{split}/rmse_baseline")[-1] == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-5)
    best = run / "checkpoints" / "best.ckpt"
    capsys.readouterr()
    assert main(["test", "--ckpt_path", str(best)]) == 0
    assert "rmse" in capsys.readouterr().out
    assert main(["export", "--ckpt_path", str(best)]) == 2
    assert "image-to-image" in capsys.readouterr().err
    sensors, left = data.sets["test"].tensors
    with torch.no_grad():
        output = load_model(best)(sensors)
    rmse = (output - left).square().mean().sqrt().item()
    assert column(run, "test/rmse")[-1] == pytest.approx(rmse, rel=1e-4)


def test_its_check_finds_no_fault(root, capsys):
    assert main(["check", *words(root)]) == 0
    assert "0 faults" in capsys.readouterr().out


def test_another_optimizer_by_its_class_path_trains(root):
    key = "--model.init_args.optimizer"
    other = [key, "torch.optim.RMSprop", f"{key}.init_args.lr", "0.01", "--model.init_args.layers", "4"]
    assert main(["fit", *words(root), *other, "--trainer.fast_dev_run", "1"]) == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "RUL_FD001.txt").unlink(), "no RUL_FD001.txt"),
        (lambda root: (root / "RUL_FD001.txt").write_text("1\n"), "1 lines for 3 engines"),
        (lambda root: (root / "test_FD001.txt").write_text("1 1 0.5\n"), "3 columns"),
        (lambda root: (root / "test_FD001.txt").write_text("1 one\n"), "cannot be read"),
        (lambda root: (root / "train_FD001.txt.gz").write_bytes(b"\x1f\x8bno"), "cannot be read"),
        (lambda root: write_engines(root / "train_FD001.txt.gz", LENGTHS[:5]), "5 engines"),
    ],
)
def test_files_that_do_not_fit_are_short_errors(root, damage, said):
    damage(root)
    with pytest.raises(UserError, match=said):
        prepared(root)


def test_another_number_of_sensors_is_a_short_error(root, capsys):
    assert main(["fit", *words(root), "--model.init_args.sensors", "15", "--trainer.fast_dev_run", "1"]) == 2
    assert "--model.init_args.sensors 3" in capsys.readouterr().err
