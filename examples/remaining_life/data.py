"""Run-to-failure measurements of engines in the text format of NASA's C-MAPSS, cut into windows of cycles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from workbench.errors import UserError

COLUMNS = 26  # unit, cycle, three operating settings, 21 sensors
FIRST_SENSOR = 5


def read_table(root: str | Path, name: str) -> np.ndarray:
    """ROOT/NAME.txt or ROOT/NAME.txt.gz, numbers separated by spaces, as float64 (rows, columns)."""
    for path in (Path(root, f"{name}.txt"), Path(root, f"{name}.txt.gz")):
        if path.is_file():
            try:
                return np.loadtxt(path, ndmin=2)
            except (ValueError, OSError, EOFError) as error:
                raise UserError(f"{path} cannot be read as a table of numbers: {error}") from error
    raise UserError(f"data.root {root} holds no {name}.txt and no {name}.txt.gz.")


def read_engines(root: str | Path, name: str) -> list[np.ndarray]:
    """The sensors of each engine, float64 (cycles, 21), in the order of unit numbers and cycles."""
    table = read_table(root, name)
    if table.shape[1] != COLUMNS:
        raise UserError(
            f"{name} in {root} has {table.shape[1]} columns; unit, cycle, settings and sensors are {COLUMNS}."
        )
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    starts = np.flatnonzero(np.diff(table[:, 0])) + 1
    return np.split(table[:, FIRST_SENSOR:], starts)


def last_cycles(sensors: np.ndarray, end: int, window: int) -> np.ndarray:
    """The ``window`` cycles up to ``end``, (window, 21); rows of zeros follow where the engine has not run as many."""
    cut = np.zeros((window, sensors.shape[1]), np.float32)
    rows = sensors[max(0, end - window) : end]
    cut[: len(rows)] = rows
    return cut


class EngineWindows(LightningDataModule):
    """Splits the training file by engine 70/20/10; a window ends at each cycle of an engine.

    A batch is ``(sensors, cycles left)``: float32 (B, window, 21) as measured, and (B,). The test set is the last
    window of each engine of the official test file.

    Args:
        root: Folder of train_SUBSET.txt, test_SUBSET.txt and RUL_SUBSET.txt, plain or as .gz.
        subset: FD001 to FD004.
        window: Cycles that a prediction sees.
        cap: A healthy engine shows no wear: more cycles left than this count as this many (Heimes 2008).
        batch_size: Windows a step.
        official_test: false: test on the 10 % of the training engines, so that the official ones stay unseen.
        seed: Of the splits.
    """

    path_arguments = ("root",)

    def __init__(
        self,
        root: str,
        subset: str = "FD001",
        window: int = 30,
        cap: float = 125.0,
        batch_size: int = 64,
        official_test: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(window, batch_size) < 1 or cap <= 0:
            raise UserError("data.window and data.batch_size must be at least 1, and data.cap above 0.")
        self.root, self.subset, self.window, self.cap = root, subset, window, cap
        self.batch_size, self.official_test, self.seed = batch_size, official_test, seed
        self.sets: dict[str, TensorDataset] = {}

    def setup(self, stage: str) -> None:
        if self.sets:
            return
        engines = read_engines(self.root, f"train_{self.subset}")
        if len(engines) < 10:
            raise UserError(f"{len(engines)} engines in {self.root} are too few to be split 70/20/10: 10 or more.")
        order = torch.randperm(len(engines), generator=torch.Generator().manual_seed(self.seed)).tolist()
        first, second = round(0.7 * len(order)), round(0.9 * len(order))
        self.engines = {"train": order[:first], "val": order[first:second], "test": order[second:]}
        for split, numbers in self.engines.items():
            ends = [(engines[number], end) for number in numbers for end in range(1, len(engines[number]) + 1)]
            self.sets[split] = self._windows(ends, [len(sensors) - end for sensors, end in ends])
        if self.official_test:
            tested = read_engines(self.root, f"test_{self.subset}")
            left = read_table(self.root, f"RUL_{self.subset}").flatten()
            if len(left) != len(tested):
                raise UserError(f"RUL_{self.subset} has {len(left)} lines for {len(tested)} engines of the test file.")
            self.sets["test"] = self._windows([(sensors, len(sensors)) for sensors in tested], left)

        training = np.concatenate([engines[number] for number in self.engines["train"]])
        self.columns = np.flatnonzero(np.ptp(training, axis=0) > 0)  # a constant sensor says nothing
        self.mean, self.std = training.mean(axis=0)[self.columns], training.std(axis=0)[self.columns]
        target = self.sets["train"].tensors[1]
        self.target_mean, self.target_std = float(target.mean()), float(target.std())

    def _windows(self, ends: list[tuple[np.ndarray, int]], left: list[int] | np.ndarray) -> TensorDataset:
        cuts = np.stack([last_cycles(sensors, end, self.window) for sensors, end in ends])
        return TensorDataset(torch.from_numpy(cuts), torch.tensor(left, dtype=torch.float32).clamp(max=self.cap))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.sets["train"], self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self, split: str = "val") -> DataLoader:
        return DataLoader(self.sets[split], 1024)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader("test")
