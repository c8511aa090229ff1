from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image

from project.callbacks import samples as samples_file
from project.callbacks.grid import run_file, to_image
from project.callbacks.samples import Samples
from project.data.batch import Batch
from project.data.pairs import GaussianNoise, GrayToColor, PaletteHints, SpatialHints
from project.networks import Normalize


def _batch(height: int = 37, width: int = 50, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(count, 3, height, width, generator=generator)
    noisy = target + 0.1 * torch.randn(target.shape, generator=generator)
    return Batch(noisy, target, noisy, torch.arange(count), torch.arange(count))


def _colored(hints, height: int, width: int) -> tuple[GrayToColor, Batch]:
    pairs = GrayToColor(hints=hints)
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(4))
    return pairs, pairs(image, None, torch.arange(2), torch.arange(2), training=False)


def _contains(canvas: np.ndarray, image: np.ndarray) -> bool:
    height, width = image.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (height, width), axis=(0, 1))
    corners = (windows[..., 0, 0] == image[0, 0]).all(-1)
    return any(
        np.array_equal(canvas[y : y + height, x : x + width], image) for y, x in zip(*np.nonzero(corners), strict=True)
    )


def _validate(samples: Samples, trainer, model, *batches) -> None:
    for number, batch in enumerate(batches):
        samples.on_validation_batch_end(trainer, model, None, batch, number)
    samples.on_validation_end(trainer, model)


def _headings(monkeypatch) -> list[tuple[list[str], list[list[str]]]]:
    """Headings and captions of the grids that are drawn."""
    seen, real = [], samples_file.grid
    monkeypatch.setattr(samples_file, "grid", lambda images, *words: seen.append(words) or real(images, *words))
    return seen


@pytest.mark.parametrize("size", [24, 192])
@pytest.mark.parametrize("pairs", [None, GaussianNoise()], ids=["none", "noise"])
def test_true_pixels_of_input_output_target_and_error(make_trainer, make_model, tmp_path, size, pairs, monkeypatch):
    seen = _headings(monkeypatch)
    batch = _batch()
    if pairs is None:  # as of a data module of one's own
        batch = SimpleNamespace(input=batch.input, target=batch.target, baseline=batch.baseline)
    model = make_model(lambda x: torch.full_like(x, 0.25))
    # Enough after the first batch.
    _validate(Samples(count=2, size=size), make_trainer(pairs, global_step=7), model, batch, _batch())
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"step_000007.png", "latest.png"}

    pixels = np.asarray(Image.open(tmp_path / "samples" / "latest.png"))
    height, width = min(37, size), min(50, size)
    top, left = (37 - height) // 2, (50 - width) // 2
    windows = [p[0, :, top : top + height, left : left + width] for p in (batch.input, batch.target)]
    error = (torch.full_like(windows[1], 0.25) - windows[1]).abs() * 4
    for image in (*windows, torch.full_like(windows[1], 0.25), error):
        assert _contains(pixels, np.asarray(to_image(image)))
    (headings, captions), *others = seen
    assert headings == ["input", "output", "target", "|error| x 4"]
    assert not others
    decibels = [
        10 * np.log10(1 / np.mean((p.numpy() - windows[1].numpy()) ** 2))
        for p in (windows[0], torch.full_like(windows[1], 0.25))
    ]
    assert captions[0] == [f"{decibels[0]:.2f} dB", f"{decibels[1]:.2f} dB"]


def test_colorization_shows_condition_hints_output_and_target(make_trainer, make_model, tmp_path, monkeypatch):
    seen = _headings(monkeypatch)
    pairs, batch = _colored(SpatialHints(eval_count=3), 98, 110)
    model = make_model(lambda x: x[:, 1:4])
    _validate(Samples(count=1), make_trainer(pairs), model, batch)
    pixels = np.asarray(Image.open(tmp_path / "samples" / "latest.png"))
    view = pairs.hints.preview(batch.input[:, 1:], batch.input[:, :1])
    for image in (batch.baseline, view, batch.input[:, 1:4], batch.target):
        assert _contains(pixels, np.asarray(to_image(image[0])))
    [(headings, captions)] = seen
    assert headings == ["condition", "hints", "output", "target"]
    assert [bool(text) for text in captions[0]] == [True, False, True]
    pairs, batch = _colored(None, 32, 24)
    _validate(Samples(count=1), make_trainer(pairs), make_model(lambda x: x.expand(-1, 3, -1, -1)), batch)
    assert seen[1][0] == ["condition", "output", "target"], "without hints"
    enlarged = np.asarray(Image.open(tmp_path / "samples" / "latest.png"))
    assert _contains(enlarged, np.asarray(to_image(batch.target[0], 4)))


def test_a_palette_is_shown_whole_on_the_crop(make_trainer, make_model, tmp_path):
    pairs, batch = _colored(PaletteHints(colors=4, eval_count=4), 300, 260)
    model = make_model(lambda x: x[:, :1].expand(-1, 3, -1, -1))
    _validate(Samples(count=1, size=100), make_trainer(pairs), model, batch)
    cut = batch.input[:1, :, 100:200, 80:180]
    expected = to_image(pairs.hints.preview(cut[:, 1:], cut[:, :1])[0])
    assert len(np.unique(np.asarray(expected)[-3, :, :], axis=0)) == 4  # the strip with all of its colors
    assert _contains(np.asarray(Image.open(tmp_path / "samples" / "latest.png")), np.asarray(expected))


def test_samples_are_the_same_images_every_time_and_can_be_switched_off(make_trainer, make_model, tmp_path):
    model, samples = make_model(lambda x: x), Samples(count=3)
    for step in (0, 2):
        _validate(samples, make_trainer(global_step=step), model, _batch(), _batch(), _batch())
    assert [len(x) for x in model.seen] == [2, 1, 2, 1]
    assert torch.equal(model.seen[0], model.seen[2])
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["latest.png", "step_000000.png", "step_000002.png"]

    off = str(tmp_path / "off")
    _validate(Samples(count=0), make_trainer(log_dir=off), model, _batch())
    _validate(Samples(), make_trainer(log_dir=off, sanity_checking=True), model, _batch())
    _validate(Samples(), make_trainer(log_dir=off, is_global_zero=False), model, _batch())
    assert not (tmp_path / "off").exists()


def test_what_is_not_about_images_is_left_alone(make_trainer, make_model, tmp_path):
    _validate(Samples(), make_trainer(), LightningModule(), _batch())
    _validate(Samples(), make_trainer(), make_model(lambda x: x), {"text": "no image"})
    assert not (tmp_path / "samples" / "latest.png").exists()


@pytest.mark.parametrize("name", ["network", "generator"])
def test_the_histogram_is_that_of_what_the_network_gets(make_trainer, monkeypatch, name):
    seen = []
    monkeypatch.setattr(samples_file, "draw_histogram", lambda *given: seen.append(given))
    monkeypatch.setattr(samples_file, "log_image", lambda *_: None)
    model, network = LightningModule(), torch.nn.Module()
    network.normalize_input = Normalize(5, [0.5] * 5, [0.25] * 5)
    setattr(model, name, network)
    pairs, batch = _colored(SpatialHints(), 9, 9)
    Samples().on_train_batch_start(make_trainer(pairs), model, batch, 0)
    [(values, normalize, channels, _)] = seen
    assert values is batch.input and normalize is network.normalize_input and channels == 1  # without the hints


def test_the_histogram_is_drawn_once(make_trainer, tmp_path):
    path, batch, model = tmp_path / "samples" / "input_histogram.png", _batch(), LightningModule()
    Samples().on_train_batch_start(make_trainer(), model, batch, 0)
    path.unlink()
    Samples().on_train_batch_start(make_trainer(global_step=5), model, batch, 5)
    Samples().on_train_batch_start(make_trainer(), model, batch, 1)  # accumulating gradients
    Samples(count=0).on_train_batch_start(make_trainer(), model, batch, 0)
    Samples().on_train_batch_start(make_trainer(is_global_zero=False), model, batch, 0)
    Samples().on_train_batch_start(make_trainer(), model, "no image", 0)
    assert not path.exists()


def test_every_process_asks_for_the_folder_and_only_the_first_has_a_path(tmp_path):
    class Trainer(SimpleNamespace):
        asked = 0

        @property
        def log_dir(self) -> str | None:
            Trainer.asked += 1  # for which all processes have to ask together
            return self.folder

    run = tmp_path / "runs" / "one"
    assert run_file(Trainer(is_global_zero=False, folder=str(run)), "samples/a.png") is None
    assert not run.exists()
    assert run_file(Trainer(is_global_zero=True, folder=str(run)), "samples/a.png") == run / "samples" / "a.png"
    assert (run / "samples").is_dir()
    assert run_file(Trainer(is_global_zero=True, folder=None), "a.png") is None  # a trial run keeps nothing
    assert Trainer.asked == 3
