from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image

from project.callbacks import samples as samples_file
from project.callbacks.pictures import to_image
from project.callbacks.samples import Samples
from project.data.batch import Batch
from project.data.pairs import GaussianNoise, GrayToColor, PaletteHints, SpatialHints


def _pair(height: int = 37, width: int = 50, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(count, 3, height, width, generator=generator)
    noisy = target + 0.1 * torch.randn(target.shape, generator=generator)
    return Batch(noisy, target, noisy, torch.arange(count), torch.arange(count))


def _colored(hints, height: int, width: int) -> tuple[GrayToColor, Batch]:
    pairs = GrayToColor(hints=hints)
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(4))
    return pairs, pairs(picture, None, torch.arange(2), torch.arange(2), training=False)


def _contains(canvas: np.ndarray, picture: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (height, width), axis=(0, 1))
    corners = (windows[..., 0, 0] == picture[0, 0]).all(-1)
    return any(
        np.array_equal(canvas[y : y + height, x : x + width], picture)
        for y, x in zip(*np.nonzero(corners), strict=True)
    )


def _validate(samples: Samples, trainer, model, *batches) -> None:
    for number, batch in enumerate(batches):
        samples.on_validation_batch_end(trainer, model, None, batch, number)
    samples.on_validation_end(trainer, model)


def _headings(monkeypatch) -> list[tuple[list[str], list[list[str]]]]:
    """What the grids are told to write."""
    seen, real = [], samples_file.grid
    monkeypatch.setattr(
        samples_file,
        "grid",
        lambda pictures, headings, captions: seen.append((headings, captions)) or real(pictures, headings, captions),
    )
    return seen


@pytest.mark.parametrize("size", [24, 192])
@pytest.mark.parametrize("pairs", [None, GaussianNoise()], ids=["none", "noise"])
def test_samples_show_input_output_target_and_error_in_true_pixels(make_trainer, tmp_path, size, pairs, monkeypatch):
    seen = _headings(monkeypatch)
    pair = _pair()
    model = SimpleNamespace(restore=lambda x: torch.full_like(x, 0.25))
    # Enough after the first batch.
    _validate(Samples(count=2, size=size, gain=2), make_trainer(pairs, global_step=7), model, pair, _pair())
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"step_000007.png", "latest.png"}

    pixels = np.asarray(Image.open(tmp_path / "samples" / "latest.png"))
    height, width = min(37, size), min(50, size)
    top, left = (37 - height) // 2, (50 - width) // 2
    windows = [p[0, :, top : top + height, left : left + width] for p in (pair.input, pair.target)]
    error = (torch.full_like(windows[1], 0.25) - windows[1]).abs() * 2
    for picture in (*windows, torch.full_like(windows[1], 0.25), error):
        assert _contains(pixels, np.asarray(to_image(picture)))
    (headings, captions), *others = seen
    assert headings == ["input", "output", "target", "|error| x 2"]
    assert not others
    decibels = [
        10 * np.log10(1 / np.mean((p.numpy() - windows[1].numpy()) ** 2))
        for p in (windows[0], torch.full_like(windows[1], 0.25))
    ]
    assert captions[0] == [f"{decibels[0]:.2f} dB", f"{decibels[1]:.2f} dB", "", ""]


def test_samples_of_coloring_show_condition_hints_output_and_truth(make_trainer, tmp_path, monkeypatch):
    seen = _headings(monkeypatch)
    pairs, pair = _colored(SpatialHints(eval_count=3), 98, 110)
    model = SimpleNamespace(restore=lambda x: x[:, 1:4])
    _validate(Samples(count=1), make_trainer(pairs), model, pair)
    pixels = np.asarray(Image.open(tmp_path / "samples" / "latest.png"))
    view = pairs.hints.preview(pair.input[:, 1:], pair.input[:, :1])
    for picture in (pair.baseline, view, pair.input[:, 1:4], pair.target):
        assert _contains(pixels, np.asarray(to_image(picture[0])))
    [(headings, captions)] = seen
    assert headings == ["condition", "hints", "output", "truth"]
    assert [bool(text) for text in captions[0]] == [True, False, True, False]


def test_without_hints_there_is_no_column_of_hints(make_trainer, monkeypatch):
    seen = _headings(monkeypatch)
    pairs, pair = _colored(None, 20, 30)
    _validate(Samples(count=1), make_trainer(pairs), SimpleNamespace(restore=lambda x: x.expand(-1, 3, -1, -1)), pair)
    assert seen[0][0] == ["condition", "output", "truth"]


def test_a_palette_is_shown_whole_on_the_crop(make_trainer, tmp_path):
    pairs, pair = _colored(PaletteHints(colors=4, eval_count=4), 300, 260)
    model = SimpleNamespace(restore=lambda x: x[:, :1].expand(-1, 3, -1, -1))
    _validate(Samples(count=1, size=100), make_trainer(pairs), model, pair)
    cut = pair.input[:1, :, 100:200, 80:180]
    expected = to_image(pairs.hints.preview(cut[:, 1:], cut[:, :1])[0])
    assert len(np.unique(np.asarray(expected)[-3, :, :], axis=0)) == 4  # the strip with all of its colors
    assert _contains(np.asarray(Image.open(tmp_path / "samples" / "latest.png")), np.asarray(expected))


def test_tiny_pictures_of_coloring_are_enlarged(make_trainer, tmp_path):
    pairs, pair = _colored(SpatialHints(eval_count=1, eval_patch=2), 32, 24)
    model = SimpleNamespace(restore=lambda x: x[:, :1].expand(-1, 3, -1, -1))
    _validate(Samples(count=1), make_trainer(pairs), model, pair)
    pixels = np.asarray(Image.open(tmp_path / "samples" / "latest.png"))
    assert _contains(pixels, np.asarray(to_image(pair.target[0], 4)))


def test_samples_are_the_same_pictures_every_time_and_can_be_switched_off(make_trainer, tmp_path):
    shown = []
    model = SimpleNamespace(restore=lambda x: shown.append(x.clone()) or x)
    samples = Samples(count=3, every_n_validations=2)
    for step in range(4):
        _validate(samples, make_trainer(global_step=step), model, _pair(), _pair(), _pair())
    assert [len(x) for x in shown] == [2, 1, 2, 1]
    assert torch.equal(shown[0], shown[2])
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "latest.png",
        "step_000000.png",
        "step_000002.png",
    ]

    off = str(tmp_path / "off")
    _validate(Samples(count=0), make_trainer(log_dir=off), model, _pair())
    _validate(Samples(), make_trainer(log_dir=off, sanity_checking=True), model, _pair())
    _validate(Samples(), make_trainer(log_dir=off, is_global_zero=False), model, _pair())
    assert not (tmp_path / "off").exists()


def test_batches_of_ones_own_are_shown_too(make_trainer, tmp_path):
    class Own(NamedTuple):
        input: torch.Tensor
        target: torch.Tensor
        baseline: torch.Tensor

    pair = _pair()
    batch = Own(pair.input, pair.target, pair.baseline)
    trainer = make_trainer(datamodule=SimpleNamespace())  # a data module without pair maker
    _validate(Samples(), trainer, SimpleNamespace(restore=lambda x: x), batch)
    assert _contains(np.asarray(Image.open(tmp_path / "samples" / "latest.png")), np.asarray(to_image(pair.target[1])))


def test_what_is_not_about_pictures_is_left_alone(make_trainer, tmp_path):
    model = SimpleNamespace(restore=lambda x: x)
    _validate(Samples(), make_trainer(), LightningModule(), _pair())
    _validate(Samples(), make_trainer(), model, {"text": "no image"})
    assert not (tmp_path / "samples" / "latest.png").exists()
