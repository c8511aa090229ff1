from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from project.callbacks.hint_curve import HintCurve
from project.callbacks.pictures import new_figure
from project.data.batch import Batch
from project.data.pairs import Coloring, GaussianNoise, GrayToColor, Hints, NoHints, PaletteHints, SpatialHints
from project.models.metrics import PSNR, as_saved, colorfulness
from workbench.errors import UserError


class Told(Hints):
    """Hints that tell how many they are: the mask is the count / 100, the color another for each image."""

    channels = 4

    def __init__(self, slots: int | None = None) -> None:
        self.slots = slots

    def drawn(self, picture):
        raise AssertionError("training's hints are no test")

    def exact(self, picture, seed, count):
        planes = torch.full((len(picture), 4, *picture.shape[2:]), count / 100)
        planes[:, :3] = seed.view(-1, 1, 1, 1) / 100
        return planes

    def given(self, height, width, points):
        raise NotImplementedError

    def view(self, planes, condition):
        raise NotImplementedError


class Gray(Coloring):
    """The condition is the green channel."""

    def condition(self, image, target, seed, training):
        return image[:, 1:2]

    def condition_of(self, picture):
        return picture[:, 1:2]


class Model(LightningModule):
    """The more hints, the nearer to what it takes for the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[int, bool]] = []

    def restore(self, image):
        condition, hints, mask = image.split([1, 3, 1], dim=1)
        self.seen.append((round(float(mask.mean()) * 100), torch.is_autocast_enabled("cpu")))
        return (condition + hints * mask * self.scale).clamp(0, 1)

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


def _batches(pairs, seed: int = 5) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    batches, number = [], 0
    for size in SIZES:
        picture = torch.rand(size, 3, 9, 14, generator=generator)
        numbers = torch.arange(number, number + size)
        batches.append(pairs(picture, None, numbers, numbers * 20, training=False))
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


def _expected(batches: list[Batch], count: int) -> tuple[float, float]:
    """PSNR and colorfulness ratio of the model, image by image in NumPy."""
    decibels, colors = [], []
    for batch in batches:
        for target, seed in zip(batch.target.numpy(), batch.seed.tolist(), strict=True):
            output = np.float32(target[1:2]) + np.float32(seed / 100) * np.float32(count / 100)
            output = np.round(np.clip(output, 0, 1) * 255).repeat(3, axis=0) / 255
            decibels.append(10 * np.log10(1 / np.mean((output - target) ** 2)))
            colors.append([_colorful(output), _colorful(np.round(target * 255) / 255)])
    outputs, targets = np.sum(colors, axis=0)
    return float(np.mean(decibels)), float(outputs / targets)


def _colorful(picture: np.ndarray) -> float:
    """Hasler and Suesstrunk's M3 of a (3, H, W) image in [0, 1]."""
    red, green, blue = picture.astype(np.float64) * 255
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))


class Tinted(Model):
    """As its base, and redder: its colorfulness is not nought."""

    def restore(self, image):
        return (super().restore(image) * torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1)).clamp(0, 1)


def test_the_colorfulness_here_and_there_agree():
    picture = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(1))
    rounded = (picture * 255).round() / 255
    assert float(colorfulness(picture)) == pytest.approx(_colorful(rounded[0].numpy()), rel=1e-4)


def test_the_curve_is_the_mean_over_pictures_for_every_count(tmp_path, capsys):
    pairs, callback = Gray(Told()), HintCurve(counts=(20, 0, 5, 5))
    batches = _batches(pairs)
    scores = _test(tmp_path, pairs, callback)
    expected = {count: _expected(batches, count) for count in (0, 5, 20)}
    assert (tmp_path / "hint_curve.csv").read_text().splitlines()[0] == "hints,psnr"
    rows = _rows(tmp_path)
    assert [row["hints"] for row in rows] == ["0", "5", "20"]
    for row in rows:
        assert float(row["psnr"]) == pytest.approx(expected[int(row["hints"])][0], abs=1e-3)
    for count, (psnr, ratio) in expected.items():
        assert scores[f"test/psnr_hints_{count}"] == pytest.approx(psnr, abs=1e-3)
        assert scores[f"test/colorfulness_ratio_hints_{count}"] == pytest.approx(ratio, abs=1e-3)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert "test/psnr_hints_20" in next(csv.reader(file))
    # A mean over batches would let the single image of the second batch count twice.
    assert len({_expected([batch], 20)[0] for batch in batches}) == 3

    printed = capsys.readouterr().out
    assert all(f"{psnr:.2f}" in printed for psnr, _ in expected.values())
    flat = [
        10 * np.log10(1 / np.mean((b.baseline - b.target)[n].numpy() ** 2))
        for b in batches
        for n in range(len(b.target))
    ]
    assert f"{np.mean(flat):.2f}" in next(line for line in printed.splitlines() if "doing nothing" in line)
    assert Image.open(tmp_path / "hint_curve.png").width > 600


def test_the_ratio_is_that_of_the_outputs_to_the_truths(tmp_path):
    pairs = Gray(Told())
    scores = _test(tmp_path, pairs, HintCurve(counts=(10,)), model=Tinted())
    outputs, targets = 0.0, 0.0
    for batch in _batches(pairs):
        for target, seed in zip(batch.target.numpy(), batch.seed.tolist(), strict=True):
            output = np.clip(target[1:2] + np.float32(seed / 100) * np.float32(0.1), 0, 1).repeat(3, axis=0)
            output = np.round(output * np.float32([1, 0.5, 0.25]).reshape(3, 1, 1) * 255) / 255
            outputs += _colorful(output)
            targets += _colorful(np.round(target * 255) / 255)
    assert scores["test/colorfulness_ratio_hints_10"] == pytest.approx(outputs / targets, rel=1e-3)
    assert 0.2 < outputs / targets < 2


def test_an_output_is_judged_as_it_would_be_saved(tmp_path):
    class Nearly(Model):
        """Off by less than half a level of 8 bits."""

        def restore(self, image):
            return image[:, :1].expand(-1, 3, -1, -1) + 0.4 / 255

    pairs = Gray(Told())
    levels = torch.randint(0, 256, (2, 1, 9, 14), generator=torch.Generator().manual_seed(1)).float() / 255
    numbers = torch.arange(2)
    batch = pairs(levels.expand(-1, 3, -1, -1), None, numbers, numbers, training=False)
    scores = _test(tmp_path, pairs, HintCurve(counts=(0,)), [batch], Nearly())
    assert scores["test/psnr_hints_0"] == 100


def test_each_count_costs_one_pass_a_batch_and_knows_the_runs_precision(tmp_path):
    model = Model()
    _test(tmp_path, Gray(Told()), HintCurve(counts=(0, 50)), model=model, precision="bf16-mixed")
    assert model.seen == [(0, True), (50, True)] * len(SIZES)


def test_a_picture_that_only_fills_up_is_not_counted(tmp_path):
    pairs = Gray(Told())
    batches = _batches(pairs)
    (tmp_path / "alone").mkdir()
    (tmp_path / "filled").mkdir()
    _test(tmp_path / "alone", pairs, HintCurve((0, 5)), batches)
    is_padding = batches[0]._replace(target=1 - batches[0].target, is_padding=torch.tensor([True]))
    _test(tmp_path / "filled", pairs, HintCurve((0, 5)), [*batches, is_padding])
    assert _rows(tmp_path / "filled") == _rows(tmp_path / "alone")


def test_a_palette_is_tested_with_as_many_colors_as_it_holds(tmp_path, capsys):
    _test(tmp_path, Gray(Told(slots=5)), HintCurve())
    assert [row["hints"] for row in _rows(tmp_path)] == ["0", "1", "2", "5"]
    assert "10, 20, 50, 100" in capsys.readouterr().out


class Filler(Model):
    """Paints the mean of the hints that a place has, and leaves the others as they are."""

    def restore(self, image):
        hints = image[:, 1:].unflatten(1, (-1, 4))
        known = hints[:, :, 3:].sum(1)
        return torch.where(known > 0, hints[:, :, :3].sum(1) / known.clamp_min(1), image[:, :1])


@pytest.mark.parametrize("kind", [SpatialHints, PaletteHints])
def test_the_curve_is_what_tests_at_each_count_would_say(tmp_path, kind):
    _test(tmp_path, GrayToColor(hints=kind(eval_count=1)), HintCurve(counts=(0, 2, 3)), model=Filler())
    rows = _rows(tmp_path)
    for row in rows:
        pairs, psnr = GrayToColor(hints=kind(eval_count=int(row["hints"]))), PSNR()
        for batch in _batches(pairs):
            psnr.update(as_saved(Filler().restore(batch.input)), batch.target)
        assert float(row["psnr"]) == pytest.approx(float(psnr.compute()), abs=1e-3)
    assert len({row["psnr"] for row in rows}) == 3


@pytest.mark.parametrize("case", ["no hints", "noise", "no pair maker", "no counts", "no pairs", "another model"])
def test_it_does_nothing_where_there_is_nothing_to_show(tmp_path, capsys, case):
    batches, model, callback, pairs = None, Model(), HintCurve(), Gray(Told())
    if case == "no hints":
        pairs = Gray(NoHints())
    elif case == "noise":
        pairs = GaussianNoise()
    elif case == "no pair maker":
        batches, pairs = _batches(pairs), None
    elif case == "no counts":
        callback = HintCurve(counts=())
    elif case == "no pairs":
        batches = [torch.rand(2, 3, 5, 6)]

        class Plain(Model):
            def test_step(self, batch, batch_idx):
                self.log("test/psnr", batch.mean())

        model = Plain()
    else:

        class Other(LightningModule):
            def test_step(self, batch, batch_idx):
                self.log("test/psnr", batch.target.mean())

        model = Other()
    scores = _test(tmp_path, pairs, callback, batches, model)
    assert set(scores) == {"test/psnr"}
    assert not list(tmp_path.glob("hint_curve.*"))
    assert capsys.readouterr().out == ""


def test_the_picture_is_labeled_and_shows_the_baseline(tmp_path, monkeypatch):
    figures = []

    def make(*size):
        figures.append(new_figure(*size))
        return figures[-1]

    monkeypatch.setattr("project.callbacks.hint_curve.new_figure", make)
    pairs = Gray(Told())
    _test(tmp_path, pairs, HintCurve(counts=(0, 10)))
    [figure] = figures
    left, right = figure.axes
    baseline = next(line for line in left.lines if line.get_linestyle() == "--")
    expected = [
        10 * np.log10(1 / np.mean((b.baseline - b.target)[n].numpy() ** 2))
        for b in _batches(pairs)
        for n in range(len(b.target))
    ]
    assert baseline.get_ydata()[0] == pytest.approx(np.mean(expected), abs=1e-3)
    for axis in (left, right):
        assert axis.get_xlabel()
        assert axis.get_ylabel()
        assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "10"]


def test_gray_truths_have_no_ratio_and_do_not_stop_the_picture(tmp_path):
    pairs = Gray(Told())
    batches = [b._replace(target=b.target[:, 1:2].expand(-1, 3, -1, -1)) for b in _batches(pairs)]
    _test(tmp_path, pairs, HintCurve(counts=(1, 2)), batches)
    assert len(_rows(tmp_path)) == 2
    assert (tmp_path / "hint_curve.png").is_file()


def test_a_negative_count_is_refused():
    with pytest.raises(UserError, match=r"hint_curve\.counts"):
        HintCurve(counts=(0, -1))


TWO_PROCESSES = """
import sys
sys.path.insert(0, {tests!r})
from test_hint_curve import Gray, Told, Model, _batches
from project.callbacks.hint_curve import HintCurve
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader
import os

class Data(LightningDataModule):
    pairs = Gray(Told())
    def test_dataloader(self):
        return DataLoader(_batches(self.pairs)[int(os.environ.get("LOCAL_RANK", 0)) :: 2], batch_size=None)

if __name__ == "__main__":
    trainer = Trainer(logger=CSVLogger({folder!r}, name="", version=""), callbacks=[HintCurve(counts=(0, 20))],
        accelerator="cpu", devices=2, strategy="ddp", use_distributed_sampler=False, enable_progress_bar=False,
        enable_model_summary=False)
    trainer.test(Model(), Data(), verbose=False)
"""


@pytest.mark.slow
def test_two_processes_count_every_picture_once(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    _test(one, Gray(Told()), HintCurve(counts=(0, 20)))
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent), folder=str(two)))
    subprocess.run([sys.executable, str(script)], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert _rows(two) == _rows(one)
