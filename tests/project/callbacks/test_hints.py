from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from project.callbacks.grid import new_figure
from project.callbacks.hints import Hints
from project.data.batch import Batch
from project.data.pairs import Coloring, GaussianNoise, GrayToColor, PaletteHints, SpatialHints
from project.data.pairs import Hints as HintPlanes
from workbench.errors import UserError


class Counting(HintPlanes):
    """Hints that tell how many they are: the mask is the count / 100, the color another for each image."""

    channels = 4

    def __init__(self, slots: int | None = None) -> None:
        self.slots = slots

    def sample(self, image):
        raise AssertionError("training's hints are no test")

    def deterministic(self, image, seed, count):
        planes = torch.full((len(image), 4, *image.shape[2:]), count / 100)
        planes[:, :3] = seed.view(-1, 1, 1, 1) / 100
        return planes


class Gray(Coloring):
    """The condition is the green channel."""

    def condition_of(self, image):
        return image[:, 1:2]


TINT = torch.tensor([1.0, 0.75, 0.5])


class Model(LightningModule):
    """The more hints, the nearer to what it takes for the target, in a tint of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[int, bool]] = []

    def forward(self, image):
        condition, hints, mask = image.split([1, 3, 1], dim=1)
        self.seen.append((round(float(mask.mean()) * 100), torch.is_autocast_enabled("cpu")))
        return (condition + hints * mask * self.scale).clamp(0, 1) * TINT.view(3, 1, 1)

    def test_step(self, batch, batch_idx):
        self.log("test/psnr", batch.target.mean())


class Data(LightningDataModule):
    def __init__(self, batches, pairs) -> None:
        super().__init__()
        self.batches = batches
        if pairs is not None:
            self.pairs = pairs

    def test_dataloader(self):
        return DataLoader(self.batches, batch_size=None)


SIZES = (2, 1, 2)


def _batches(pairs) -> list[Batch]:
    generator = torch.Generator().manual_seed(5)
    batches, number = [], 0
    for size in SIZES:
        image = torch.rand(size, 3, 9, 14, generator=generator)
        numbers = torch.arange(number, number + size)
        batches.append(pairs(image, None, numbers, numbers * 20, training=False))
        number += size
    return batches


def _test(folder, pairs, callback, batches=None, model=None, **options):
    trainer = Trainer(
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[callback],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )
    data = Data(_batches(pairs) if batches is None else batches, pairs)
    model = Model() if model is None else model
    return trainer.test(model, data, verbose=False)[0]


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "hint_curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _expected(batches: list[Batch], count: int) -> float:
    """PSNR of the model, image by image in NumPy."""
    decibels = []
    for batch in batches:
        for target, seed in zip(batch.target.numpy(), batch.seed.tolist(), strict=True):
            output = np.float32(target[1:2]) + np.float32(seed / 100) * np.float32(count / 100)
            output = np.round(np.clip(output, 0, 1) * TINT.numpy().reshape(3, 1, 1) * 255) / 255
            decibels.append(10 * np.log10(1 / np.mean((output - target) ** 2)))
    return float(np.mean(decibels))


def test_the_curve_is_the_mean_over_images_for_every_count(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        "project.callbacks.hints.new_figure", lambda *size: figures.append(new_figure(*size)) or figures[0]
    )
    pairs, callback = Gray(Counting()), Hints(counts=(20, 0, 5, 5))
    batches = _batches(pairs)
    scores = _test(tmp_path, pairs, callback)
    assert (tmp_path / "hint_curve.csv").read_text().splitlines()[0] == "hints,psnr"
    rows = _rows(tmp_path)
    assert [row["hints"] for row in rows] == ["0", "5", "20"]
    for row in rows:
        expected = pytest.approx(_expected(batches, int(row["hints"])), abs=1e-3)
        assert float(row["psnr"]) == expected
        assert scores[f"test/psnr_hints_{row['hints']}"] == expected
    # A mean over batches would let the single image of the second batch count twice.
    assert len({_expected([batch], 20) for batch in batches}) == 3
    assert Image.open(tmp_path / "hint_curve.png").width > 300
    [axis] = figures[0].axes
    baseline = next(line for line in axis.lines if line.get_linestyle() == "--")
    errors = [(b.baseline - b.target)[n].square().mean().item() for b in batches for n in range(len(b.target))]
    assert baseline.get_ydata()[0] == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-3)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "5", "20"]


def test_each_count_costs_one_pass_a_batch_and_knows_the_runs_precision(tmp_path):
    model = Model()
    _test(tmp_path, Gray(Counting()), Hints(counts=(0, 50)), model=model, precision="bf16-mixed")
    assert model.seen == [(0, True), (50, True)] * len(SIZES)


def test_padding_is_not_counted(tmp_path):
    pairs = Gray(Counting())
    batches = _batches(pairs)
    (tmp_path / "alone").mkdir()
    (tmp_path / "padded").mkdir()
    _test(tmp_path / "alone", pairs, Hints((0, 5)), batches)
    padding = batches[0]._replace(target=1 - batches[0].target, is_padding=torch.tensor([True]))
    _test(tmp_path / "padded", pairs, Hints((0, 5)), [*batches, padding])
    assert _rows(tmp_path / "padded") == _rows(tmp_path / "alone")


def test_a_palette_is_tested_with_as_many_colors_as_it_holds(tmp_path):
    _test(tmp_path, Gray(Counting(slots=5)), Hints())
    assert [row["hints"] for row in _rows(tmp_path)] == ["0", "1", "2", "5"]


@pytest.mark.parametrize("case", ["no hints", "no pair maker", "no counts", "no images", "another model"])
def test_it_does_nothing_where_there_is_nothing_to_show(tmp_path, capsys, case):
    class Other(LightningModule):
        def test_step(self, batch, batch_idx):
            self.log("test/psnr", torch.tensor(1.0))

    pairs = Gray(HintPlanes() if case == "no hints" else Counting())
    batches = [torch.rand(2, 3, 5, 6)] if case == "no images" else _batches(pairs)
    callback = Hints(counts=()) if case == "no counts" else Hints()
    model = Other() if case in ("no images", "another model") else Model()
    scores = _test(tmp_path, None if case == "no pair maker" else pairs, callback, batches, model)
    assert set(scores) == {"test/psnr"}
    assert not list(tmp_path.glob("hint_curve.*"))
    assert capsys.readouterr().out == ""


def test_it_is_added_where_there_are_hints_and_refuses_a_negative_count():
    for hints, found in ((SpatialHints(), True), (PaletteHints(), True), (None, False)):
        assert Hints().applies(SimpleNamespace(pairs=GrayToColor(hints=hints))) == found
    for other in (SimpleNamespace(pairs=GaussianNoise()), SimpleNamespace(), None):
        assert not Hints().applies(other)
    with pytest.raises(UserError, match=r"hints\.counts"):
        Hints(counts=(0, -1))


TWO_PROCESSES = """
import os, sys
sys.path.insert(0, {tests!r})
from test_hints import Counting, Gray, Hints, _batches, _test

if __name__ == "__main__":
    pairs = Gray(Counting())
    own = _batches(pairs)[int(os.environ.get("LOCAL_RANK", 0)) :: 2]
    options = dict(devices=2, strategy="ddp", use_distributed_sampler=False)
    _test({folder!r}, pairs, Hints(counts=(0, 20)), own, **options)
"""


@pytest.mark.slow
def test_two_processes_count_every_image_once(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    _test(one, Gray(Counting()), Hints(counts=(0, 20)))
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent), folder=str(two)))
    subprocess.run([sys.executable, str(script)], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert _rows(two) == _rows(one)
