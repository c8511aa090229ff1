from __future__ import annotations

import colorsys
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

from project.callbacks import hints as hints_file
from project.callbacks.grid import new_figure, to_image
from project.callbacks.hints import Hints, flat_spot
from project.data.batch import Batch
from project.data.pairs import Coloring, GrayToColor, NoHints, PaletteHints, SpatialHints
from project.data.pairs import Hints as HintPlanes
from project.models.metrics import PSNR, as_saved
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

    def from_points(self, height, width, points):
        raise NotImplementedError

    def preview(self, planes, condition):
        raise NotImplementedError


class Gray(Coloring):
    """The condition is the green channel."""

    def condition(self, image, target, seed, training):
        return image[:, 1:2]

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


def _batches(pairs, seed: int = 5) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
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


def _expected(batches: list[Batch], count: int) -> tuple[float, float]:
    """PSNR and colorfulness ratio of the model, image by image in NumPy."""
    decibels, colors = [], []
    for batch in batches:
        for target, seed in zip(batch.target.numpy(), batch.seed.tolist(), strict=True):
            output = np.float32(target[1:2]) + np.float32(seed / 100) * np.float32(count / 100)
            output = np.round(np.clip(output, 0, 1) * TINT.numpy().reshape(3, 1, 1) * 255) / 255
            decibels.append(10 * np.log10(1 / np.mean((output - target) ** 2)))
            colors.append([_colorful(output), _colorful(np.round(target * 255) / 255)])
    outputs, targets = np.sum(colors, axis=0)
    return float(np.mean(decibels)), float(outputs / targets)


def _colorful(image: np.ndarray) -> float:
    """Hasler and Suesstrunk's M3 of a (3, H, W) image in [0, 1]."""
    red, green, blue = image.astype(np.float64) * 255
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))


def test_the_curve_is_the_mean_over_images_for_every_count(tmp_path):
    pairs, callback = Gray(Counting()), Hints(counts=(20, 0, 5, 5))
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
    assert Image.open(tmp_path / "hint_curve.png").width > 300


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


class Painting(Model):
    """Paints the mean of the hints that a place has, and leaves the others as they are."""

    def forward(self, image):
        hints = image[:, 1:].unflatten(1, (-1, 4))
        known = hints[:, :, 3:].sum(1)
        return torch.where(known > 0, hints[:, :, :3].sum(1) / known.clamp_min(1), image[:, :1])


@pytest.mark.parametrize("kind", [SpatialHints, PaletteHints])
def test_the_curve_is_what_tests_at_each_count_would_say(tmp_path, kind):
    _test(tmp_path, GrayToColor(hints=kind(eval_count=1)), Hints(counts=(0, 2, 3)), model=Painting())
    rows = _rows(tmp_path)
    for row in rows:
        pairs, psnr = GrayToColor(hints=kind(eval_count=int(row["hints"]))), PSNR()
        for batch in _batches(pairs):
            psnr.update(as_saved(Painting()(batch.input)), batch.target)
        assert float(row["psnr"]) == pytest.approx(float(psnr.compute()), abs=1e-3)
    assert len({row["psnr"] for row in rows}) == 3


@pytest.mark.parametrize("case", ["no hints", "no pair maker", "no counts", "no images", "another model"])
def test_it_does_nothing_where_there_is_nothing_to_show(tmp_path, capsys, case):
    class Other(LightningModule):
        def test_step(self, batch, batch_idx):
            self.log("test/psnr", torch.tensor(1.0))

    pairs = Gray(NoHints() if case == "no hints" else Counting())
    batches = [torch.rand(2, 3, 5, 6)] if case == "no images" else _batches(pairs)
    callback = Hints(counts=()) if case == "no counts" else Hints()
    model = Other() if case in ("no images", "another model") else Model()
    scores = _test(tmp_path, None if case == "no pair maker" else pairs, callback, batches, model)
    assert set(scores) == {"test/psnr"}
    assert not list(tmp_path.glob("hint_curve.*"))
    assert capsys.readouterr().out == ""


def test_the_image_is_labeled_and_shows_the_baseline(tmp_path, monkeypatch):
    figures = []

    def make(*size):
        figures.append(new_figure(*size))
        return figures[-1]

    monkeypatch.setattr("project.callbacks.hints.new_figure", make)
    pairs = Gray(Counting())
    _test(tmp_path, pairs, Hints(counts=(0, 10)))
    [figure] = figures
    [axis] = figure.axes
    baseline = next(line for line in axis.lines if line.get_linestyle() == "--")
    expected = [
        10 * np.log10(1 / np.mean((b.baseline - b.target)[n].numpy() ** 2))
        for b in _batches(pairs)
        for n in range(len(b.target))
    ]
    assert baseline.get_ydata()[0] == pytest.approx(np.mean(expected), abs=1e-3)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "10"]


def test_gray_targets_have_no_ratio_and_do_not_stop_the_image(tmp_path):
    pairs = Gray(Counting())
    batches = [b._replace(target=b.target[:, 1:2].expand(-1, 3, -1, -1)) for b in _batches(pairs)]
    _test(tmp_path, pairs, Hints(counts=(1, 2)), batches)
    assert len(_rows(tmp_path)) == 2
    assert (tmp_path / "hint_curve.png").is_file()


def test_a_negative_count_is_refused():
    with pytest.raises(UserError, match=r"hints\.counts"):
        Hints(counts=(0, -1))


TWO_PROCESSES = """
import sys
sys.path.insert(0, {tests!r})
from test_hints import Gray, Counting, Model, _batches
from project.callbacks.hints import Hints
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader
import os

class Data(LightningDataModule):
    pairs = Gray(Counting())
    def test_dataloader(self):
        return DataLoader(_batches(self.pairs)[int(os.environ.get("LOCAL_RANK", 0)) :: 2], batch_size=None)

if __name__ == "__main__":
    trainer = Trainer(logger=CSVLogger({folder!r}, name="", version=""), callbacks=[Hints(counts=(0, 20))],
        accelerator="cpu", devices=2, strategy="ddp", use_distributed_sampler=False, enable_progress_bar=False,
        enable_model_summary=False)
    trainer.test(Model(), Data(), verbose=False)
"""


@pytest.mark.slow
def test_two_processes_count_every_image_once(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    _test(one, Gray(Counting()), Hints(counts=(0, 20)))
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent), folder=str(two)))
    subprocess.run([sys.executable, str(script)], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert _rows(two) == _rows(one)


def mean_color(x):
    """A model whose output is the mean color of the hints."""
    hints = x[:, 1:].unflatten(1, (-1, 4))
    color = hints[:, :, :3].sum((1, 3, 4)) / hints[:, :, 3:].sum((1, 3, 4))
    return color[..., None, None].expand(-1, 3, *x.shape[2:])


def _sweep_batch(pairs, height: int = 40, width: int = 52) -> Batch:
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(8))
    image[:, :, 18:30, 24:38] = torch.tensor([0.7, 0.6, 0.5]).view(3, 1, 1)
    return pairs(image, None, torch.arange(2), torch.arange(2), training=False)


def _validate(callback, trainer, model, *batches) -> None:
    for number, batch in enumerate(batches):
        callback.on_validation_batch_end(trainer, model, None, batch, number)
    callback.on_validation_end(trainer, model)


@pytest.mark.parametrize("hints", [SpatialHints(eval_patch=4), PaletteHints(colors=3)], ids=["spatial", "palette"])
def test_one_hint_goes_round_the_wheel_and_nothing_else_changes(make_trainer, make_model, hints):
    pairs, model = GrayToColor(hints=hints), make_model(mean_color)
    batch = _sweep_batch(pairs)
    _validate(Hints(), make_trainer(pairs), model, batch, _sweep_batch(pairs))
    [seen] = model.seen
    assert seen.shape == (12, 1 + hints.channels, 40, 52)
    assert torch.equal(seen[:, :1], batch.input[:1, :1].expand(12, -1, -1, -1))
    slots = seen[:, 1:].unflatten(1, (-1, 4))
    masks = slots[:, :, 3]
    assert torch.equal(masks, masks[:1].expand_as(masks))
    assert int((masks[0].flatten(1).amax(1) > 0).sum()) == 1  # one hint, or one color of the palette
    found = []
    for planes, mask in zip(slots, masks, strict=True):
        [color] = np.unique(planes[:, :3].permute(0, 2, 3, 1)[mask > 0].numpy(), axis=0)
        hue, saturation, brightness = colorsys.rgb_to_hsv(*color.tolist())
        found.append(hue * 360)
        assert (saturation, brightness) == pytest.approx((0.8, 0.9), abs=1e-5)
    assert found == pytest.approx([30 * step for step in range(12)], abs=1e-3)
    if hints.slots is None:
        rows, columns = np.nonzero(seen[0, 4].numpy())
        assert len(rows) == 16
        assert 18 <= rows.min() <= rows.max() < 30, "where the image is flat"
        assert 24 <= columns.min() <= columns.max() < 38


def test_the_sweep_shows_swatches_over_outputs_labeled_in_degrees(make_trainer, make_model, tmp_path, monkeypatch):
    seen, real = [], hints_file.grid
    monkeypatch.setattr(hints_file, "grid", lambda *given: seen.append(given) or real(*given))
    pairs, model = GrayToColor(hints=SpatialHints()), make_model(mean_color)
    batch = _sweep_batch(pairs)
    _validate(Hints(), make_trainer(pairs), model, batch)
    [(rows, headings, _)] = seen
    assert headings[1:] == [f"{30 * step}°" for step in range(12)]
    for step in range(12):
        wanted = [round(255 * value) for value in colorsys.hsv_to_rgb(step / 12, 0.8, 0.9)]
        swatch, output = (np.asarray(row[step + 1]) for row in rows)
        assert (swatch == wanted).all()
        assert np.abs(output.astype(int) - wanted).max() <= 1
        assert output.shape == (80, 104, 3)  # 40 x 52, enlarged
    view = pairs.hints.preview(model.seen[0][:1, 1:], batch.input[:1, :1])[0]
    assert np.array_equal(np.asarray(rows[1][0]), np.asarray(to_image(view, 2)))
    assert Image.open(tmp_path / "samples" / "hint_sweep.png").width > 13 * 104


def test_the_middle_is_swept_the_same_each_time(make_trainer, make_model, monkeypatch):
    monkeypatch.setattr(hints_file, "SIDE", 48)
    pairs, model = GrayToColor(hints=SpatialHints()), make_model(mean_color)
    batch, callback = _sweep_batch(pairs, 70, 90), Hints()
    for _ in range(2):
        _validate(callback, make_trainer(pairs), model, batch, batch)
    assert len(model.seen) == 2
    assert torch.equal(*model.seen)
    assert torch.equal(model.seen[0][0, :1], batch.input[0, :1, 11:59, 21:69])


@pytest.mark.parametrize("case", ["off", "no hints", "no data module", "sanity", "rank", "model", "batch"])
def test_there_is_no_sweep_where_there_is_nothing_to_show(make_trainer, make_model, tmp_path, case):
    pairs, model = GrayToColor(hints=SpatialHints()), make_model(mean_color)
    batch = _sweep_batch(pairs)
    if case == "no hints":
        pairs = GrayToColor(hints=NoHints())
    elif case == "no data module":
        pairs = None
    elif case == "model":
        model = LightningModule()
    elif case == "batch":
        batch = (batch.input, batch.target)
    trainer = make_trainer(pairs, sanity_checking=case == "sanity", is_global_zero=case != "rank")
    _validate(Hints(sweep=case != "off"), trainer, model, batch)
    assert not (tmp_path / "samples" / "hint_sweep.png").exists()
    assert case == "model" or not model.seen


def test_the_spot_is_flat_neither_dark_nor_white_and_rather_in_the_middle():
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(2))
    image[:, 25:38, 8:20] = 0.6
    x, y = flat_spot(image)
    assert 25 <= y < 38
    assert 8 <= x < 20
    assert flat_spot(torch.full((3, 41, 61), 0.6)) == (30, 20)
    image = torch.ones(3, 48, 64)
    image[:, :, 32:] = 0.0
    image[:, 20:34, 36:50] = 0.6
    x, y = flat_spot(image)
    assert 36 <= x < 50
    assert 20 <= y < 34
    for height, width in ((2, 2), (3, 7), (1, 5)):
        x, y = flat_spot(torch.rand(3, height, width, generator=torch.Generator().manual_seed(2)))
        assert 0 <= x < width
        assert 0 <= y < height
