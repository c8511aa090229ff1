"""The batch sizes that are tried, out of memory among them, what is recommended, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from project.__main__ import main
from workbench.errors import UserError
from workbench.tune import batch
from workbench.tune.batch import Result, Row, batch_size_of, find_batch_sizes, free_memory, process_memory
from workbench.tune.steps import Task

CPU = {"accelerator": "cpu"}


class Rows(LightningDataModule):
    def __init__(self, count: int = 200, batch_size: int = 8) -> None:
        super().__init__()
        self.count, self.batch_size = count, batch_size

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(self.count, 3)), self.batch_size, shuffle=True)


class InHparams(LightningDataModule):
    """Keeps its batch size where save_hyperparameters puts it."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(8, 3)), self.hparams.batch_size)


class Fixed(Rows):
    """Does not use its batch size."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(64, 3)), 8)


class Without(LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(64, 3)), 8)


class Model(LightningModule):
    """Says that the memory is full above a number of samples."""

    sizes: ClassVar[list[int]] = []

    def __init__(self, fits: int = 10**6, error: str = "CUDA out of memory. Tried to allocate 2 GiB") -> None:
        super().__init__()
        self.network, self.fits, self.error = nn.Linear(3, 1), fits, error

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (x,) = batch
        self.sizes.append(len(x))
        if len(x) > self.fits:
            raise torch.OutOfMemoryError(self.error)
        return self.network(x).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class WithNorm(Model):
    """As batch norm, which takes no single sample."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if len(batch[0]) == 1:
            raise ValueError("Expected more than 1 value per channel")
        return super().training_step(batch, batch_idx)


class Alone(Model):
    """Has the loader itself."""

    batch_size = 4

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.ones(8, 3)), self.batch_size)


@pytest.fixture(autouse=True)
def collected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often memory is freed, which takes a third of a second with all of torch loaded."""
    calls: list[int] = []
    monkeypatch.setattr(batch, "garbage_collection_cuda", lambda: calls.append(1))
    return calls


@pytest.fixture
def _to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: speed and RAM end nothing."""
    monkeypatch.setattr(batch, "_reason_to_end", lambda rows: "")


def tried(result: Result) -> list[tuple[int, str]]:
    return [(row.size, row.problem) for row in result.rows]


@pytest.mark.usefixtures("_to_the_end")
@pytest.mark.parametrize(
    ("fits", "rows"),
    [
        (13, [(1, ""), (2, ""), (4, ""), (8, ""), (12, ""), (16, "out of memory")]),
        (11, [(1, ""), (2, ""), (4, ""), (8, ""), (12, "out of memory"), (16, "out of memory")]),
        (1, [(1, ""), (2, "out of memory")]),
    ],
)
def test_sizes_double_until_memory_is_full_and_once_between(fits, rows, collected):
    Model.sizes.clear()
    model, data, state = Model(fits), Rows(), torch.get_rng_state()
    result = find_batch_sizes(Task(model, data, CPU), 32, 2)
    assert tried(result) == rows
    assert sorted(set(Model.sizes) - {8}) == [size for size, _ in rows if size != 8]  # 200 / 16 leaves 8 samples
    assert result.ended == f"{rows[-1][0]} is out of memory"
    assert result.measured[-1].size == max(size for size, problem in rows if not problem)
    assert (data.batch_size, data.trainer, model._trainer) == (8, None, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(collected) == len(rows)


@pytest.mark.usefixtures("_to_the_end")
def test_other_errors_are_raised_but_for_those_of_a_single_sample():
    assert tried(find_batch_sizes(Task(WithNorm(), Rows(), CPU), 4, 1)) == [
        (1, "Expected more than 1 value per channel"),
        (2, ""),
        (4, ""),
    ]
    model = Model()
    model.training_step = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        find_batch_sizes(Task(model, Rows(), CPU), 4, 1)
    with pytest.raises(UserError, match=r"No batch size could be measured: out of memory\."):
        find_batch_sizes(Task(Model(0), Rows(), CPU), 4, 1)


@pytest.mark.usefixtures("_to_the_end")
def test_the_data_end_it_and_any_holder_of_a_batch_size_is_taken():
    result = find_batch_sizes(Task(Model(), Rows(5), CPU), 64, 2)
    assert [row.size for row in result.rows] == [1, 2, 4]
    assert result.ended == "the training split holds no two batches of 8"
    for model, data in ((Model(), InHparams()), (Alone(), None)):
        task = Task(model, data, CPU)
        before = batch_size_of(task)
        assert [row.size for row in find_batch_sizes(task, 64, 1).rows] == [1, 2, 4]
        assert batch_size_of(task) == before == (4 if data is None else 8)


def test_data_whose_batch_size_cannot_be_varied_end_in_one_line():
    with pytest.raises(UserError, match="Without has no batch_size to vary"):
        batch_size_of(Task(Model(), Without(), CPU))
    with pytest.raises(UserError, match="With batch_size 1 a batch has 8 samples"):
        find_batch_sizes(Task(Model(), Fixed(), CPU), 4, 1)


def test_on_a_cpu_the_next_batch_stays_within_half_of_the_free_memory(monkeypatch):
    gib = 2.0**30
    rows = [Row(1, 1.0, 1.0 * gib), Row(2, 1.0, 1.5 * gib), Row(4, 1.0, 2.5 * gib)]  # 8 would take 2 more
    monkeypatch.setattr(batch, "free_memory", lambda: 4.1 * gib)
    assert batch._reason_to_end(rows) == ""
    monkeypatch.setattr(batch, "free_memory", lambda: 3.9 * gib)
    assert batch._reason_to_end(rows) == "8 would take more than half of the free memory"
    slow = [Row(size, size / speed) for size, speed in ((1, 50), (2, 100), (4, 109), (8, 115))]
    assert batch._reason_to_end(slow) == "samples per second stopped growing"
    assert batch._reason_to_end(slow[:3]) == ""  # one doubling may be noise


def test_memory_is_read_where_the_system_tells():
    block = torch.ones(2**22)  # 16 MiB
    assert process_memory() > block.nbytes or process_memory() == 0
    assert free_memory() > 0


@pytest.mark.parametrize(
    ("speeds", "size"),
    [
        ({1: 50, 2: 100, 4: 180, 8: 195, 16: 200}, 4),  # 8 % more for twice the batch
        ({1: 50, 2: 100, 4: 200}, 4),  # still growing
        ({1: 50, 2: 52, 4: 180, 8: 190}, 4),  # a stumble is not the end
        ({4: 100, 6: 110, 8: 113}, 6),  # log2(6 / 4) of a doubling needs 6 %, log2(8 / 6) of one 4 %
    ],
)
def test_the_smallest_batch_beyond_which_no_doubling_brings_ten_percent_is_recommended(speeds, size):
    assert Result([Row(n, n / speed) for n, speed in speeds.items()], "").recommended.size == size


def test_the_command_prints_a_table_and_writes_nothing(capsys):
    tree = {
        "model": {"class_path": f"{__name__}.Model", "init_args": {"fits": 6}},
        "data": {"class_path": f"{__name__}.Rows", "init_args": {"batch_size": 3}},
        "trainer": {"accelerator": "cpu"},
    }
    Path("rows.yaml").write_text(yaml.safe_dump(tree))
    assert main(["tune-batch", "--config", "rows.yaml", "--max=4", "--steps", "2"]) == 0
    printed = capsys.readouterr().out
    for text in ("samples per second", "Recommended", "configured: 3", "Largest tried", "A rule of thumb only"):
        assert text in printed
    assert "tune-lr --config rows.yaml --data.batch_size" in printed
    assert [path.name for path in Path().iterdir() if path.name != ".cache"] == ["rows.yaml"]
    tree["data"] = {"class_path": f"{__name__}.Without"}
    Path("without.yaml").write_text(yaml.safe_dump(tree))
    assert main(["tune-batch", "--config", "without.yaml"]) == 2
    assert "Without has no batch_size to vary" in capsys.readouterr().err
